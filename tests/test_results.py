"""What is committed of the studies follows from their committed runs, by the rules as they are now."""

from __future__ import annotations

import csv
import math
import shutil
from pathlib import Path

import pytest

from toyguide.studies import Plan, studies
from toyguide.studies.base import judge, verdict_of
from toyguide.studies.report import describe, read_summary, write_results
from toyguide.studies.rows import Rows

ROOT = Path(__file__).resolve().parent.parent / "studies"


def number(text: str) -> str | float:
    try:
        return float(text)
    except ValueError:
        return text


def rows_of(name: str) -> Rows:
    with (ROOT / name / "runs.csv").open(encoding="utf-8", newline="") as file:
        return Rows({k: number(v) for k, v in row.items() if v != ""} for row in csv.DictReader(file))


@pytest.mark.parametrize("name", list(studies()))
def test_the_verdict_follows_from_the_runs(name):
    study, summary, rows = studies()[name], read_summary(ROOT / name / "summary.json"), rows_of(name)
    assert not summary["quick"]
    plan = Plan(seeds=summary["seeds"], first_seed=summary["first_seed"])
    assert len(rows) == summary["runs"] == len(study.cells(plan))
    assert set(rows.values("seed")) <= set(plan.seed_range)

    judged = judge(study.criteria, rows)
    found = {j.criterion.name: j.found for j in judged} | dict(study.numbers(rows))
    for key, value in found.items():
        low, high = summary["intervals"][key]
        written = [math.nan if v is None else v for v in (summary["figures"][key], low, high)]
        # Six digits are written. Of a difference of nearly equal numbers, as many are left as the runs' own have.
        assert [value.mean, value.low, value.high] == pytest.approx(written, rel=1e-5, abs=1e-9, nan_ok=True)
    assert found.keys() == summary["figures"].keys()
    against = [c["p_against"] for c in summary["criteria"]]
    assert [j.p_against for j in judged] == pytest.approx(against, rel=1e-4, abs=1e-9)
    assert [j.verdict for j in judged] == [c["verdict"] for c in summary["criteria"]]
    assert verdict_of(judged) == summary["verdict"]


@pytest.mark.parametrize("name", list(studies()))
def test_what_was_judged_is_what_is_claimed_now(name):
    summary = read_summary(ROOT / name / "summary.json")
    for key, value in describe(studies()[name]).items():
        if key != "criteria":
            assert summary[key] == value
    claimed = [{k: c[k] for k in ("name", "text", "threshold")} for c in summary["criteria"]]
    assert claimed == describe(studies()[name])["criteria"]


@pytest.mark.parametrize("name", list(studies()))
def test_the_figures_are_there(name):
    sheets = read_summary(ROOT / name / "summary.json")["sheets"]
    assert sheets
    for sheet in sheets:
        assert (ROOT / name / f"{sheet['name']}.png").read_bytes().startswith(b"\x89PNG")


def test_the_table_of_all_studies_is_that_of_the_summaries(tmp_path):
    for name in studies():
        (tmp_path / name).mkdir()
        shutil.copy(ROOT / name / "summary.json", tmp_path / name)
    write_results(tmp_path, studies().values())
    assert (tmp_path / "RESULTS.md").read_text(encoding="utf-8") == (ROOT / "RESULTS.md").read_text(encoding="utf-8")
