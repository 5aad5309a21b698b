"""The league: settings, what is read off a ladder, standings and files, and that it goes on where it stopped."""

from __future__ import annotations

import csv
import json
import math

import numpy as np
import pytest
from scipy.stats import qmc

import toyguide.league.run as league_run
from toyguide.cli import main
from toyguide.errors import InputError
from toyguide.experiment import Experiment
from toyguide.guidance import rule, rules
from toyguide.guidance.base import DEFINED
from toyguide.league import (
    AIMS,
    ARENAS,
    at_coverage,
    beside,
    differences,
    entrants,
    front,
    good_share,
    read_league,
    run_league,
    standings,
)
from toyguide.league.arenas import EVALUATIONS, Arena
from toyguide.league.report import table, write_league
from toyguide.league.settings import design, main_parameters, params_of, span, text_of, weight_at, weight_of
from toyguide.studies.rows import interval
from toyguide.training import TrainSettings

PAIR = Arena("two-gaussians", None)
OWN = """
from toyguide.guidance import Guided, PerTrajectory, Rule

class Shrunk(Rule):
    key = "shrunk"
    title = "Shrunk"
    summary = "Draws every denoised point towards the origin."
    unguided = {"w": 1.0}
    equivariant = ("rotation",)
    batchable = True
    w = PerTrajectory(1.2, bounds=(0.0, 2.0), step=0.1, doc="Weight; 1 is unguided.")

    def guide(self, at, memory):
        return Guided(at.denoised() * (2 - self.w))
"""


@pytest.fixture(scope="module")
def rule_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("rules") / "shrunk.py"
    path.write_text(OWN)
    return path


@pytest.fixture(autouse=True)
def forget():
    """Rules that a test defines are forgotten after it."""
    before = dict(DEFINED)
    yield
    DEFINED.clear()
    DEFINED.update(before)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Networks and runs as small as they can be: what they find does not matter here."""

    def networks(self, plan, seed):
        own = TrainSettings(self.dataset, conditional=True, width=4, layers=1, iterations=2, batch=8, seed=seed)
        return {"sampled": own, "weaker": own}

    monkeypatch.setattr(Arena, "networks", networks)
    monkeypatch.setattr("toyguide.league.arenas.samples", lambda plan: 32)
    monkeypatch.setattr("toyguide.league.arenas.STEPS", 4)


# ---- settings


@pytest.mark.parametrize("key", [k for k in rules() if weight_of(rules()[k])])
def test_every_rule_gets_as_many_settings_and_every_setting_is_valid(key):
    cls = rules()[key]
    found = design(cls, 12)
    assert found[0] == {}
    assert len({text_of(params) for params in found}) == 12
    for params in found:
        assert set(params) <= set(main_parameters(cls))
        assert all(span(cls, name)[0] <= value <= span(cls, name)[1] for name, value in params.items())
        assert params_of(text_of(params)) == params
        rule(key, **params)


def test_the_weight_goes_from_no_guidance_to_the_far_end_of_its_slider():
    assert [weight_at(rules()["cfg"], s) for s in (0, 0.5, 1)] == [1.0, 5.5, 10.0]
    assert [weight_at(rules()["sfg"], s) for s in (0, 1)] == [0.0, 30.0]
    assert [weight_at(rules()["fbg"], s) for s in (0, 1)] == [1.0, 0.5]  # the slider's upper end is unguided
    assert weight_of(rules()["none"]) is None
    assert main_parameters(rules()["apg"]) == ("w", "eta", "beta", "r")


def test_the_other_parameters_are_a_latin_hypercube():
    """Each of as many strata of every parameter's slider is drawn from once."""
    spread = [p for p in design(rules()["apg"], 13) if "eta" in p]
    for name in ("eta", "beta", "r"):
        low, high = span(rules()["apg"], name)
        strata = sorted(math.floor((p[name] - low) / (high - low) * len(spread)) for p in spread)
        assert strata == list(range(len(spread)))
    unit = np.array([[p["eta"], (p["beta"] + 1) / 2, p["r"]] for p in spread])
    assert qmc.discrepancy(unit) < qmc.discrepancy(np.full_like(unit, 0.5))


# ---- aims


def test_a_setting_that_loses_its_coverage_comes_after_all_that_keep_it():
    kept, lost = {"outliers": 0.9, "coverage": 0.8}, {"outliers": 0.0, "coverage": 0.79}
    assert AIMS["outliers"].of(kept) == 0.9
    assert AIMS["outliers"].of(lost) > 1
    assert AIMS["outliers"].of(lost) < AIMS["outliers"].of({**lost, "coverage": 0.5})
    assert AIMS["outliers"].of(lost, at_coverage=0.7) == 0.0
    assert AIMS["distance"].of({"coverage": 0.1, "sliced_w2": 0.2}) == 0.2
    assert AIMS["distance"].of({"coverage": 0.1, "sliced_w2": None}) == math.inf


# ---- what is read off a ladder


def test_outliers_at_a_matched_coverage_of_a_straight_trade():
    """Outliers a + b c: where the coverage c is the level, the outliers are a + b level, whichever the rungs are."""
    levels = np.array([0.97, 0.9, 0.72, 0.3])
    coverage = np.stack([levels + 0.02, levels - 0.02])  # two seeds, about the mean
    outliers = 0.01 + 0.1 * coverage
    place, found = at_coverage(coverage, outliers, 0.8)
    assert place == pytest.approx(1 + (0.9 - 0.8) / (0.9 - 0.72))
    assert np.mean(found) == pytest.approx(0.01 + 0.1 * 0.8)
    assert found[0] - found[1] == pytest.approx(0.1 * 0.04)


def test_where_more_coverage_has_fewer_outliers_it_is_taken():
    place, found = at_coverage(np.array([[0.95, 0.9, 0.6]]), np.array([[0.2, 0.05, 0.3]]), 0.8)
    assert (place, found) == (1.0, [0.05])
    assert at_coverage(np.array([[0.7, 0.6]]), np.array([[0.1, 0.1]]), 0.8) is None
    # Up again behind a gap: the crossing on the way up counts as well.
    place, found = at_coverage(np.array([[0.9, 0.5, 0.9]]), np.array([[0.4, 0.1, 0.0]]), 0.7)
    assert (place, found) == (2.0, [0.0])


def test_the_good_share_of_straight_lines():
    """Outliers fall below the unguided at 0.25 of the slider, the coverage below its level at 0.75."""
    shares = (0.0, 0.5, 1.0)
    coverage = np.array([[1.0, 0.8667, 0.7333]])
    outliers = np.array([[0.125, 0.075, 0.025]])
    assert good_share(shares, coverage, outliers, [0.1], 0.8) == [pytest.approx(0.5, abs=2e-3)]
    assert good_share(shares, coverage, outliers, [0.02], 0.8) == [0.0]


def test_the_front():
    points = {"a": (0.9, 0.1), "b": (0.8, 0.05), "c": (0.8, 0.2), "d": (0.7, 0.05), "e": (0.95, 0.3)}
    assert front(points) == ["b", "a", "e"]
    assert front({"a": (0.5, 0.5), "b": (0.5, 0.5)}) == ["a", "b"]


# ---- who runs where


def test_who_does_not_run_is_said_with_the_reason():
    running, absent = entrants([PAIR], ["none", "cfg", "sfg", "svdd", "ideal", "formula", "internal-guidance"])
    assert [e.rule for e in running] == ["none", "sfg"]
    assert absent[PAIR.name, "cfg"].startswith("guides to a class (uncond")
    assert "reward" in absent[PAIR.name, "svdd"]
    assert "exact fields" in absent[PAIR.name, "ideal"]
    assert "typed" in absent[PAIR.name, "formula"]
    assert "not trained here" in absent[PAIR.name, "internal-guidance"]


def test_steps_make_equal_evaluations(monkeypatch):
    monkeypatch.setattr("toyguide.league.arenas.STEPS", 32)
    running, _ = entrants(ARENAS[1:2], ["none", "cfg", "cfg+autoguidance", "cfg++"], equal_evaluations=True)
    exact = {"main": "exact", "uncond": "exact@union", "weak": "exact+noise:0.2"}
    for e in running:
        fields = {name: exact[name] for name in e.cls.roles()}
        again = Experiment("two-gaussians", "left", rule=e.rule, sampler=e.sampler, steps=e.steps, n=4, fields=fields)
        assert again.run("cpu").nfe == pytest.approx(EVALUATIONS, rel=0.05)


def test_fields_of_another_class_and_of_all_are_those_of_the_seeds_own_network():
    (e,), _ = entrants(ARENAS[1:2], ["compose"])
    fields = e.experiment({}, 4, league_run.Plan(), 7).fields
    assert fields["other"] == f"{fields['main']}@right"
    assert fields["uncond"] == f"{fields['main']}@union"
    assert fields != e.experiment({}, 4, league_run.Plan(), 8).fields
    assert entrants(ARENAS[1:2], ["classifier"])[0][0].exact_roles == ("classifier",)


# ---- the whole


@pytest.fixture
def small_league(tmp_path):
    return run_league(ARENAS[1:3], ["none", "cfg", "sfg"], tmp_path, quick=True, device="cpu")


def test_standings_are_the_rows_numbers_with_students_intervals(small_league):
    found = standings(small_league)
    assert list(found["arenas"]) == ["two-gaussians-left", "two-gaussians"]
    assert found["arenas"]["two-gaussians"]["absent"].keys() == {"cfg"}
    standing = found["arenas"]["two-gaussians"]["rules"]["sfg"]
    own = [
        row["outliers"]
        for row in small_league.rows
        if (row["arena"], row["rule"], row["setting"]) == ("two-gaussians", "sfg", text_of(standing["params"]))
        and row["steps"] == standing["steps"]
        and "measured" not in row
    ]
    expected = interval(own)
    assert expected.count == 3
    assert standing["numbers"]["outliers"] == pytest.approx([expected.mean, expected.low, expected.high], rel=1e-3)
    assert standing["seeds"]["outliers"] == pytest.approx(own, rel=1e-3)
    assert standing["numbers"]["time"][0] > 0


def test_a_league_that_was_killed_goes_on_and_has_the_same_rows(small_league, tmp_path):
    class Killed(BaseException):
        pass

    ran = []

    def stop(progress):
        ran.append(progress)
        if progress.text.startswith("run 1") and len(ran) > 12:
            raise Killed

    again = tmp_path / "again"
    with pytest.raises(Killed):
        run_league(ARENAS[1:3], ["none", "cfg", "sfg"], again, quick=True, device="cpu", tell=stop)
    assert list(again.glob("league*/runs.csv.journal"))
    resumed = run_league(ARENAS[1:3], ["none", "cfg", "sfg"], again, quick=True, device="cpu")

    def numbers(rows):
        return [{k: v for k, v in row.items() if k != "time"} for row in rows]

    assert numbers(resumed.tuning) == numbers(small_league.tuning)
    assert numbers(resumed.rows) == numbers(small_league.rows)
    lines = sum(1 for path in again.glob("league*/runs.csv.journal") for _ in path.open())
    assert lines == len(resumed.rows) + len(resumed.tuning)  # none was run twice


def test_its_files(small_league, tmp_path):
    found = standings(small_league)
    write_league(small_league, found, tmp_path / "files")
    assert read_league(tmp_path / "files") == json.loads(json.dumps(found))
    with (tmp_path / "files" / "league.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(small_league.rows) + len(small_league.tuning)
    report = (tmp_path / "files" / "RESULTS.md").read_text()
    assert "Does not run here" in report
    assert "- `cfg`: guides to a class" in report
    titles, lines = table(found["arenas"]["two-gaussians"])
    assert all(len(line) == len(titles) for line in lines)
    with pytest.raises(InputError, match="not the standings"):
        read_league(tmp_path)


def test_its_figure_labels_do_not_overlap(small_league):
    pytest.importorskip("matplotlib")
    from itertools import combinations

    from matplotlib.backends.backend_agg import FigureCanvasAgg

    from toyguide.plots.league import draw_arena

    for arena in standings(small_league)["arenas"].values():
        figure = draw_arena(arena)
        renderer = FigureCanvasAgg(figure).get_renderer()
        texts = [t for t in figure.axes[0].texts if t.get_text() in arena["rules"]]
        assert texts
        boxes = [t.get_window_extent(renderer) for t in texts]
        assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))


# ---- one's own rule


def test_differences_are_paired_by_seed():
    rules = {"a": {"seeds": {"outliers": [0.1, 0.3, 0.5]}}, "b": {"seeds": {"outliers": [0.0, 0.2, 0.3]}}}
    found = differences({"rules": rules}, "a", "b")
    assert found["outliers"] == interval([0.1, 0.1, 0.2])
    assert set(found) == {"outliers"}


def test_an_own_rule_is_run_beside_cfg_and_compared(tmp_path, rule_file, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    argv = ["league", "--quick", "--dataset", "two-gaussians", "--rule", str(rule_file), "--device", "cpu"]
    assert main([*argv, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    left = found["standings"]["arenas"]["two-gaussians-left"]["rules"]
    assert set(left) == {"none", "cfg", "shrunk"}
    pairs = {(d["rule"], d["rival"]) for d in found["differences"]["two-gaussians-left"]}
    assert pairs == {("shrunk", "none"), ("shrunk", "cfg")}
    assert not (tmp_path / "out" / "league").exists()  # the table of all rules is not touched
    assert main(argv) == 0
    assert "shrunk minus cfg: outliers" in capsys.readouterr().out


def test_it_stands_beside_a_league_that_was_run_alike():
    def of(**rules):
        standing = {"numbers": {"outliers": [0.1, 0.1, 0.1], "coverage": [0.9, 0.9, 0.9]}}
        return {"seeds": 3, "arenas": {"x": {"branched": True, "rules": dict.fromkeys(rules, standing)}}}

    own, all_rules = of(mine=1, cfg=1), of(cfg=1, sfg=1)
    assert set(beside(own, all_rules, "x")["rules"]) == {"mine", "cfg", "sfg"}
    assert set(beside(own, {**all_rules, "seeds": 4}, "x")["rules"]) == {"mine", "cfg"}
    assert set(beside(own, None, "x")["rules"]) == {"mine", "cfg"}


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--rule", "autoguidence"], "did you mean 'autoguidance'"),
        (["--rule", "missing.py"], "no such file"),
        (["--dataset", "fractl"], "did you mean 'fractal'"),
        (["--workers", "2"], "expected --executor processes"),
    ],
)
def test_what_is_refused(argv, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["league", *argv]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
