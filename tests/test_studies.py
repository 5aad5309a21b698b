"""Studies: intervals and verdicts by their rule, runs that survive an interruption, files that say what was found."""

from __future__ import annotations

import csv
import inspect
import json
import math
import os
import re
import sys
import types
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from toyguide import studies as registry
from toyguide.cli import main
from toyguide.errors import InputError
from toyguide.experiment import Experiment
from toyguide.studies import Plan, measuring, provenance, run_study, studies
from toyguide.studies.base import INCONCLUSIVE, NOT_SUPPORTED, SUPPORTED, Cell, Criterion, Study, judge, verdict_of
from toyguide.studies.record import Record, runs_of
from toyguide.studies.report import read_summary, write, write_results
from toyguide.studies.rows import Rows, holm, interval, p_below
from toyguide.studies.run import Progress
from toyguide.studies.workshop import Workshop, trained
from toyguide.sweeps import batch
from toyguide.training import TrainSettings, train

TINY = TrainSettings("two-gaussians", None, width=8, layers=1, iterations=3, batch=16)


RAN: list[tuple[int, int]] = []


def grown(workshop, x, seed):
    RAN.append((x, seed))
    return {"y": x * (1 + 0.1 * seed), "offset": 0.1 * seed}


class Growth(Study):
    """A study that takes no time: the number grows with the setting, and a little with the seed."""

    # No name: the registry does not list it.
    title = "Growth"
    statement = "Twice the setting gives twice the number."
    source = "nowhere"
    setting = "By hand."
    criteria = (
        Criterion(
            "ratio",
            "The number doubles",
            lambda rows: [b / a for a, b in zip(rows.per_seed("y", x=1), rows.per_seed("y", x=2), strict=True)],
            at_least=1.5,
        ),
    )

    def cells(self, plan):
        return [Cell({"x": x, "seed": s}, grown, cost=1.0) for s in plan.seed_range for x in (1, 2)]

    def numbers(self, rows):
        return {"y_at_2": rows.over_seeds("y", x=2)}


class Guided(Study):
    """A study of experiments: an exact one and one of a network, and a function beside them."""

    title, statement, source, setting = "Guided", "CFG moves samples.", "nowhere", "Two Gaussians."
    criteria = (
        Criterion("moved", "It does", lambda rows: rows.difference("far", {"w": 3.0}, {"w": 1.0}), at_least=0.0),
    )

    def cells(self, plan):
        small = {"dataset": "two-gaussians", "n": 32, "steps": 3, "sampler": "euler"}
        found = []
        for seed in plan.seed_range:
            for w in (1.0, 3.0):
                e = Experiment(**small, label="left", main="exact", rule="cfg", params={"w": w}, seed=seed)
                found.append(Cell({"w": w, "seed": seed}, e, ("log_density", "outliers")))
            e = Experiment(**small, main=trained(TINY), seed=seed)
            found.append(Cell({"network": "tiny", "seed": seed}, e, needs=(TINY,)))
            found.append(Cell({"x": 2, "seed": seed}, grown, cost=0.1))
        return found

    def columns(self, numbers):
        return {"far": -numbers["log_density"], **numbers} if "log_density" in numbers else numbers


@pytest.fixture
def growth(monkeypatch):
    RAN.clear()
    monkeypatch.setattr(Growth, "name", "growth")
    return Growth()


@pytest.fixture
def guided(monkeypatch):
    RAN.clear()
    monkeypatch.setattr(Guided, "name", "guided")
    return Guided()


# --- intervals and verdicts ---------------------------------------------------------------------------------------


def test_the_interval_is_students():
    values = [0.3, 0.5, 0.1, 0.9, 0.4]
    found = interval(values)
    expected = stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=1e-12)
    assert found.mean == pytest.approx(np.mean(values))


def test_the_interval_covers_the_truth_as_often_as_it_says():
    draws = np.random.default_rng(0).normal(2.0, 3.0, (2000, 4))
    hits = sum(i.low <= 2.0 <= i.high for i in map(interval, draws))
    assert abs(hits / 2000 - 0.95) < 4 * math.sqrt(0.95 * 0.05 / 2000)  # four standard errors


SHAPES = {
    "normal": (lambda g, size: g.normal(2.0, 3.0, size), 2.0, 0.95),
    "70 : 30": (lambda g, size: (g.random(size) < 0.3) + g.normal(0, 0.1, size), 0.3, 0.94),
    "90 : 10": (lambda g, size: (g.random(size) < 0.1) + g.normal(0, 0.1, size), 0.1, 0.72),
    "gamma": (lambda g, size: g.gamma(4.0, size=size), 4.0, 0.94),
    "exponential": (lambda g, size: g.exponential(size=size), 1.0, 0.90),
}


@pytest.mark.parametrize(("draw", "mean", "share"), SHAPES.values(), ids=SHAPES)
def test_ten_values_of_any_shape_are_covered_as_often_as_the_text_says(draw, mean, share):
    found = [interval(values) for values in draw(np.random.default_rng(1), (4000, 10))]
    held = sum(i.low <= mean <= i.high for i in found) / 4000
    assert abs(held - share) < 0.005 + 4 * math.sqrt(share * (1 - share) / 4000)  # the text rounds to 0.01


def test_the_p_value_is_students():
    values = [0.3, 0.5, 0.1, 0.9, 0.4]
    for limit in (-1.0, 0.4, 0.7, 2.0):
        assert p_below(values, limit) == pytest.approx(stats.ttest_1samp(values, limit, alternative="less").pvalue)
    assert math.isnan(p_below([1.0], 2.0))
    assert math.isnan(p_below([1.0, math.nan], 2.0))


def test_holms_correction_is_the_closed_test():
    """A criterion is rejected if every set of criteria that contains it is, each by Bonferroni's test of the set."""
    for p in np.random.default_rng(2).beta(0.3, 2.0, (50, 4)):
        sets = [s for k in (1, 2, 3, 4) for s in combinations(range(4), k)]
        closed = [max(len(s) * min(p[i] for i in s) for s in sets if j in s) for j in range(4)]
        assert holm(p) == pytest.approx(np.minimum(closed, 1.0))
    assert holm([0.01, math.nan, 0.02]) == pytest.approx([0.03, math.nan, 0.04], nan_ok=True)


def verdicts_of(effects, repeats=1500):
    """The shares of verdicts on repeated studies: ``effects`` draws (criteria, seeds) values, claimed to be >= 0."""
    g, found = np.random.default_rng(3), []
    for _ in range(repeats):
        criteria = [Criterion(f"c{i}", "", lambda _, v=v: v, at_least=0.0) for i, v in enumerate(effects(g))]
        found.append(verdict_of(judge(criteria, Rows([]))))
    return {verdict: found.count(verdict) / repeats for verdict in (SUPPORTED, NOT_SUPPORTED, INCONCLUSIVE)}


SPREADS = {
    "normal": lambda g, size: g.normal(0, 1, size),
    "uniform": lambda g, size: g.uniform(-1, 1, size),
    "two equal modes": lambda g, size: (g.random(size) < 0.5) - 0.5 + g.normal(0, 0.1, size),
}
SKEWED = {
    "70 : 30": (lambda g, size: (g.random(size) < 0.3) - 0.3 + g.normal(0, 0.1, size), 0.05, 0.14),
    "exponential": (lambda g, size: g.exponential(size=size) - 1, 0.09, 0.22),
}


@pytest.mark.parametrize("spread", SPREADS)
@pytest.mark.parametrize("shared", [0.0, 0.8])
def test_a_true_claim_is_seldom_not_supported(spread, shared):
    """Five criteria that are just met, independent or with most of their noise in common."""
    draw = SPREADS[spread]
    found = verdicts_of(lambda g: shared * draw(g, (1, 10)) + (1 - shared) * draw(g, (5, 10)))
    assert found[NOT_SUPPORTED] <= 0.05
    if spread == "normal" and not shared:
        assert abs(found[NOT_SUPPORTED] - 0.025) < 4 * math.sqrt(0.025 / 1500)  # and would be 0.12 uncorrected


@pytest.mark.parametrize(("draw", "one", "five"), SKEWED.values(), ids=SKEWED)
def test_skewed_effects_err_as_often_as_the_text_says(draw, one, five):
    """A true claim of one criterion and of five, and a false one whose effect is skewed the other way."""
    for criteria, expected in [(1, one), (5, five)]:
        found = verdicts_of(lambda g, k=criteria: draw(g, (k, 10)))[NOT_SUPPORTED]
        assert abs(found - expected) < 0.005 + 4 * math.sqrt(expected / 1500)
    found = verdicts_of(lambda g: np.array([[-1e-9], [9.0]]) - draw(g, (2, 10)))[SUPPORTED]
    assert abs(found - one) < 0.005 + 4 * math.sqrt(one / 1500)


@pytest.mark.parametrize("spread", SPREADS)
def test_a_false_claim_is_seldom_supported(spread):
    """One criterion is just not met and the others are met by far, which makes it the hardest to see."""
    found = verdicts_of(lambda g: SPREADS[spread](g, (5, 10)) + np.array([[-1e-9], [9.0], [9.0], [9.0], [9.0]]))
    assert 0 < found[SUPPORTED] <= 0.05


def test_a_claim_fails_by_the_criteria_together():
    """A p-value of 0.02 fails a claim of one criterion, and not one of two, whatever its interval says."""
    values = np.array([-2.0, -1.0, 0.0, 1.0])
    values -= values.mean() + values.std(ddof=1) / 2 * stats.t.isf(0.02, 3)
    bad = Criterion("bad", "", lambda rows: values, at_least=0.0)
    good = Criterion("good", "", lambda rows: -values, at_least=0.0)
    (alone,) = judge([bad], Rows([]))
    assert alone.p_against == pytest.approx(0.02)
    assert alone.verdict == NOT_SUPPORTED
    judged = judge([bad, good], Rows([]))
    assert [j.p_against for j in judged] == pytest.approx([0.04, 0.98])
    assert [j.verdict for j in judged] == [INCONCLUSIVE, SUPPORTED]
    assert judged[0].found.high < 0


def test_values_that_are_all_equal_are_judged_without_rounding():
    assert np.mean([0.1] * 3) > 0.1
    for equal in ([0.1] * 3, [0.1] * 10):
        assert judged(equal, at_least=0.1) == judged(equal, at_most=0.1) == SUPPORTED
        assert judged(equal, at_least=0.2) == judged(equal, at_most=0.05) == NOT_SUPPORTED


def test_a_single_value_decides_nothing():
    claims = ({"at_least": 0.0}, {"at_least": 2.0}, {"at_most": 0.0})
    assert {judged([1.0], **claim) for claim in claims} == {INCONCLUSIVE}


def test_one_value_has_no_width_and_none_is_nan():
    assert (interval([1.5]).low, interval([1.5]).high) == (1.5, 1.5)
    assert math.isnan(interval([]).mean)
    assert math.isnan(interval([1.0, math.nan]).low)


def judged(values, **threshold):
    rows = Rows({"seed": i, "y": v} for i, v in enumerate(values))
    return judge([Criterion("y", "y", lambda r: r.per_seed("y"), **threshold)], rows)[0].verdict


def test_a_criterion_is_judged_by_where_its_whole_interval_lies():
    near_one = [0.99, 1.0, 1.01]  # 0.975 … 1.025
    assert judged(near_one, at_least=0.9) == SUPPORTED
    assert judged(near_one, at_least=1.1) == NOT_SUPPORTED
    assert judged(near_one, at_least=1.0) == INCONCLUSIVE
    assert judged(near_one, at_most=1.1) == SUPPORTED
    assert judged(near_one, at_most=0.9) == NOT_SUPPORTED
    assert judged(near_one, at_most=1.0) == INCONCLUSIVE
    assert judged([0.0, 1.0, 5.0], at_least=0.5) == INCONCLUSIVE  # the mean alone would do


def test_a_value_that_is_not_a_number_decides_nothing():
    assert judged([1.0, math.nan], at_least=0.0) == INCONCLUSIVE
    assert judged([1.0, math.nan], at_most=0.0) == INCONCLUSIVE


def test_the_worst_criterion_is_the_verdict():
    def study_of(*values):
        rows = Rows({"seed": i, "y": v} for i, v in enumerate([1.0, 1.0]))
        criteria = [Criterion("y", "y", lambda r, v=v: [v + d for d in r.per_seed("y")], at_least=0.0) for v in values]
        return verdict_of(judge(criteria, rows))

    (undecided,) = judge([Criterion("y", "y", lambda r: [-1.0, 1.0], at_least=0.0)], Rows([{"seed": 0}]))
    assert undecided.verdict == INCONCLUSIVE
    assert study_of(1.0, 1.0) == SUPPORTED
    assert study_of(1.0, -9.0) == NOT_SUPPORTED
    assert verdict_of([undecided]) == INCONCLUSIVE


def test_rows_are_found_by_value_and_paired_by_seed():
    rows = Rows(
        {"rule": r, "w": w, "seed": s, "y": y} for r, w, s, y in [("a", 1, 1, 5), ("a", 1.0, 0, 3), ("b", 2, 0, 1)]
    )
    assert rows.per_seed("y", rule="a", w=1.0) == [3, 5]  # in the seeds' order
    assert rows.per_seed(lambda row: row["y"] ** 2, rule="a") == [9, 25]
    assert rows.difference("y", {"rule": "a", "seed": 0}, {"rule": "b"}) == [2]
    assert rows.values("rule") == ["a", "b"]
    with pytest.raises(LookupError, match="no row"):
        rows.where(rule="c")


# --- running ------------------------------------------------------------------------------------------------------


def test_a_study_runs_its_cells_and_judges_them(growth, tmp_path):
    told: list[Progress] = []
    outcome = run_study(growth, Plan(seeds=3), tmp_path, told.append)
    assert outcome.verdict == SUPPORTED
    assert outcome.judged[0].found.mean == pytest.approx(2.0)
    assert outcome.numbers["y_at_2"].mean == pytest.approx(22.2)  # seeds 100, 101 and 102
    assert [p.done for p in told] == sorted(p.done for p in told)
    assert told[-1].done == told[-1].total == 6.0


def test_what_is_finished_is_not_run_again_and_changes_nothing(growth, tmp_path):
    class StopError(Exception):
        pass

    def stop_at_three(progress):
        if progress.done >= 3:
            raise StopError

    with pytest.raises(StopError):
        run_study(growth, Plan(seeds=3), tmp_path, stop_at_three)
    assert len(RAN) == 3
    resumed = run_study(growth, Plan(seeds=3), tmp_path)
    assert len(RAN) == len(set(RAN)) == 6
    whole = run_study(growth, Plan(seeds=3), tmp_path / "elsewhere")
    assert list(resumed.rows) == list(whole.rows)
    # More seeds run only those that are new, and fewer take those that were asked for.
    RAN.clear()
    assert len(run_study(growth, Plan(seeds=4), tmp_path).rows) == 8
    assert {seed for _, seed in RAN} == {103}
    assert len(run_study(growth, Plan(seeds=2), tmp_path).rows) == 4
    RAN.clear()
    assert len(run_study(growth, Plan(seeds=4, first_seed=102), tmp_path).rows) == 8
    assert {seed for _, seed in RAN} == {104, 105}


def test_a_quick_look_never_replaces_a_full_run(growth, tmp_path):
    run_study(growth, Plan(seeds=2), tmp_path)
    RAN.clear()
    run_study(growth, Plan(quick=True, seeds=2), tmp_path)
    assert len(RAN) == 4
    assert {p.name for p in tmp_path.iterdir()} == {"growth", "growth-quick"}


def test_a_torn_line_counts_as_not_run(growth, tmp_path):
    rows = list(run_study(growth, Plan(seeds=2), tmp_path).rows)
    journal = tmp_path / "growth" / "runs.csv.journal"
    journal.write_bytes(journal.read_bytes()[:-5])
    RAN.clear()
    assert list(run_study(growth, Plan(seeds=2), tmp_path).rows) == rows
    assert len(RAN) == 1
    assert len(journal.read_text().splitlines()) == 4


def test_experiments_and_functions_give_the_rows_of_single_runs(guided, tmp_path, monkeypatch):
    """A batch's row is that of the run alone, up to the order of float32 sums."""
    plan = Plan(seeds=2, device="cpu")
    rows = run_study(guided, plan, tmp_path).rows
    assert [list(row)[:2] for row in rows[:3]] == [["w", "seed"], ["w", "seed"], ["network", "seed"]]
    shop = Workshop(plan, tmp_path / "networks")
    for cell, row in zip(guided.cells(plan), rows, strict=True):
        if isinstance(cell.run, Experiment):
            single = shop.run(cell.run).metrics(resamples=0)
            assert {c: row[c] for c in cell.metrics if c in row} == pytest.approx(
                {c: single[c] for c in cell.metrics if single.get(c) is not None}, rel=1e-5
            )
    assert rows[0]["far"] == -rows[0]["log_density"]
    assert RAN == [(2, 100), (2, 101)]
    monkeypatch.setattr(batch, "run_batch", lambda *_: pytest.fail("it ran again"))
    assert list(run_study(guided, plan, tmp_path).rows) == list(rows)


@pytest.mark.parametrize("threads", [1, 3])
def test_any_executor_gives_the_same_rows(guided, tmp_path, threads):
    plan = Plan(seeds=2, device="cpu")
    told: list[Progress] = []
    expected = run_study(guided, plan, tmp_path / "here")
    with ThreadPoolExecutor(threads) as executor:
        outcome = run_study(guided, plan, tmp_path / "there", told.append, executor)
    assert list(outcome.rows) == list(expected.rows)
    assert [p.done for p in told] == sorted(p.done for p in told)
    assert told[-1].done == pytest.approx(told[-1].total)
    assert {p.name for p in (tmp_path / "there" / "networks").iterdir()} == {Path(trained(TINY)).name}


def rows_and_processes(folder, *flags):
    """The rows of the own claim, run by the command, and the processes that measured it."""
    command = ["study", "own-claim", "--quick", "--seeds", "2", "--device", "cpu", "-o", str(folder)]
    assert main([*command, *flags]) == 0
    with (folder / "own-claim-quick" / "runs.csv").open() as file:
        rows = list(csv.DictReader(file))
    return [{**row, "process": ""} for row in rows], {row["process"] for row in rows} - {""}


def test_processes_and_a_cluster_run_a_study(claims, tmp_path, monkeypatch):
    """Their workers find its functions by name, also in a folder of one's own, and its networks by their paths."""
    import distributed

    (claims / "own.py").write_text((Path(__file__).parent / "own_claim.py").read_text())
    rows, here = rows_and_processes(tmp_path / "here")
    assert here == {str(float(os.getpid()))}
    found = [rows_and_processes(tmp_path / "processes", "--executor", "processes", "--workers", "2")]
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with distributed.LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster:
        found.append(rows_and_processes(tmp_path / "cluster", "--scheduler", cluster.scheduler_address))
    for there, processes in found:
        assert there == rows
        assert processes
        assert not processes & here


def test_what_measures_time_is_run_in_this_process_and_last(growth, tmp_path, monkeypatch):
    cells = [replace(c, timed=c.key["x"] == 1) for c in growth.cells(Plan(seeds=1))]
    monkeypatch.setattr(Growth, "cells", lambda self, plan: cells)
    record, places = Record(growth, runs_of(growth, Plan(seeds=1)), tmp_path), []
    monkeypatch.setattr(measuring, "completed", lambda f, calls, executor: places.append((len(calls), executor)) or [])
    with ThreadPoolExecutor(1) as executor:
        list(measuring.measured(record, Workshop(Plan(), tmp_path), executor))
    assert places == [(1, executor), (1, None)]


# --- runs that are out of date ------------------------------------------------------------------------------------


SOURCE = inspect.getsource(sys.modules[__name__])


@pytest.fixture
def edit(monkeypatch):
    """Has the machinery see this file as it would be after an edit."""

    def edit(old, new):
        assert old in SOURCE
        monkeypatch.setattr(provenance.inspect, "getsource", lambda module: SOURCE.replace(old, new))
        provenance.code_of.cache_clear()

    yield edit
    monkeypatch.undo()
    provenance.code_of.cache_clear()


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("x * (1 + 0.1 * seed)", "x * (1 + 0.2 * seed)", "code"),
        ("RAN: list[tuple[int, int]] = []", "RAN: list[tuple[int, int]] = [(0, 0)]", "code"),  # which it uses
        ("def grown(workshop, x, seed):\n", 'def grown(workshop, x, seed):\n    """Grows."""\n    # Fast.\n', None),
        ('        return {"y_at_2"', '        return {"y_at_three"', None),  # what is made of the rows
    ],
)
def test_a_run_whose_code_has_changed_is_run_again(growth, tmp_path, edit, caplog, old, new, why):
    run_study(growth, Plan(seeds=2), tmp_path)
    RAN.clear()
    edit(old, new)
    run_study(growth, Plan(seeds=2), tmp_path)
    assert len(RAN) == (4 if why else 0)
    expected = [f"growth: 4 finished runs are run again; changed since: {why}"] if why else []
    assert [record.message for record in caplog.records] == expected
    RAN.clear()
    run_study(growth, Plan(seeds=2), tmp_path)
    assert not RAN, "once is enough"


def test_a_run_depends_on_its_experiment_its_networks_and_its_metrics(monkeypatch):
    plan = Plan(seeds=1)
    e = Experiment("two-gaussians", main=trained(TINY), n=16)
    cells = {
        "run": Cell({"seed": 0}, e),
        "steps": Cell({"seed": 0}, replace(e, steps=8)),
        "network": Cell({"seed": 0}, replace(e, main=trained(replace(TINY, iterations=4)))),
        "metrics": Cell({"seed": 0}, e, ("outliers",)),
        "function": Cell({"x": 0, "seed": 0}, grown, needs=(TINY,)),
        "its network": Cell({"x": 0, "seed": 0}, grown, needs=(replace(TINY, iterations=4),)),
    }
    found = {name: provenance.depends_on(cell, plan) for name, cell in cells.items()}

    def differ(one, other):
        return {part for part in found[one] if found[one][part] != found[other][part]}

    assert differ("run", "steps") == differ("run", "network") == {"experiment"}
    assert differ("run", "metrics") == {"metrics"}
    assert differ("function", "its network") == {"networks"}
    assert provenance.depends_on(replace(cells["run"], cost=9.0), plan) == found["run"]
    quick = provenance.depends_on(cells["function"], Plan(quick=True, seeds=7, device="cpu"))
    assert {part for part in quick if quick[part] != found["function"][part]} == {"settings"}
    more = provenance.depends_on(cells["function"], Plan(seeds=7, device="cpu"))
    assert more == found["function"], "more seeds leave the first ones as they are"
    monkeypatch.setattr(provenance, "VERSION", provenance.VERSION + 1)
    for name in ("run", "function"):
        newer = provenance.depends_on(cells[name], plan)
        assert {part for part in newer if newer[part] != found[name][part]} == {"metrics"}


def test_the_code_of_a_claim_is_followed_into_what_claims_share():
    from toyguide.studies.claims import cfg_overshoots, sfg_saddle_loss

    code = provenance.code_of(cfg_overshoots._measure_on_line)
    for part in ("def describe(", "_SLACK = ", "class Segments(", "_STEPS = 256", "RIGHT = "):
        assert part in code, part
    assert "class CfgOvershoots" not in code
    assert "def merging_sigma(" in provenance.code_of(sfg_saddle_loss._measure)


def test_a_function_that_workers_could_not_find_is_refused():
    with pytest.raises(InputError, match="expected one of its module's top level"):
        provenance.depends_on(Cell({"seed": 0}, lambda workshop, seed: {}), Plan())


def test_a_function_of_an_interactive_session_depends_on_its_code(monkeypatch):
    session = types.ModuleType("session")
    monkeypatch.setitem(sys.modules, "session", session)

    def code(text):
        exec(text, vars(session))
        return provenance.code_of(session.measure)

    one = code("def measure(workshop, seed):\n    return {'y': seed}")
    assert code("def measure(workshop, seed):\n    # The same.\n    return {'y': seed}") == one
    assert code("def measure(workshop, seed):\n    return {'y': seed + 1}") != one


# --- networks -----------------------------------------------------------------------------------------------------


def test_networks_are_trained_once_and_are_what_training_gives(tmp_path):
    seen = []

    def watch(settings, steps):
        for step in steps:
            seen.append(step.iteration)
            yield step

    shop = Workshop(Plan(device="cpu"), tmp_path / "networks", watch)
    run = Experiment("two-gaussians", main=trained(TINY), n=64, steps=4)
    for asking in (lambda: shop.network(TINY), lambda: shop.run(run)):
        with pytest.raises(InputError, match="is not trained"):
            asking()
    shop.train(TINY)
    shop.train(TINY)
    assert seen == [1, 2, 3]
    *_, last = train(TINY, "cpu")
    for name, tensor in shop.network(TINY).state_dict().items():
        assert tensor.equal(last.averages[0.010].state_dict()[name])
    x = torch.zeros(1, 2)
    assert shop.fields(run)["main"].score(x, 1.0).equal(last.averages[0.010].score(x, 1.0))


def test_networks_of_other_settings_are_other_files(tmp_path):
    shop = Workshop(Plan(device="cpu"), tmp_path)
    shop.train(replace(TINY, ema=(0.010, 0.2)))
    assert shop.has(TINY)  # the same first average, whatever else is averaged
    assert not shop.has(replace(TINY, seed=1))
    assert trained(TINY) != trained(replace(TINY, ema=(0.2,))) == trained(replace(TINY, ema=(0.010, 0.2)), 0.2)


# --- what is left behind ------------------------------------------------------------------------------------------


def test_the_files_say_what_was_found(growth, tmp_path):
    outcome = run_study(growth, Plan(seeds=3, first_seed=7), tmp_path)
    summary = write(outcome, tmp_path / "growth")
    assert read_summary(tmp_path / "growth" / "summary.json") == summary
    assert summary["verdict"] == SUPPORTED
    assert summary["figures"] == {"ratio": pytest.approx(2.0), "y_at_2": pytest.approx(3.6)}
    low, high = summary["intervals"]["y_at_2"]
    expected = stats.ttest_1samp([3.4, 3.6, 3.8], 0.0).confidence_interval(0.95)
    assert (low, high) == pytest.approx((expected.low, expected.high), rel=1e-5)  # six digits are written
    with (tmp_path / "growth" / "runs.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(r["y"]) for r in rows] == [r["y"] for r in outcome.rows]
    report = (tmp_path / "growth" / "report.md").read_text()
    assert "**Supported.**" in report
    assert "toyguide study growth --seeds 3 --first-seed 7" in report

    assert summary["criteria"][0]["p_against"] == 1.0

    write_results(tmp_path, [growth, *studies().values()])
    results = (tmp_path / "RESULTS.md").read_text()
    assert "Twice the setting" in results
    assert "**supported**" in results


def lists(results):
    """The page's lists by their headings."""
    return dict(re.findall(r"^## (.+)\n\n((?:- .+\n|None\.\n)+)", results, re.MULTILINE))


def test_the_results_open_with_what_holds_and_what_does_not(growth, tmp_path, monkeypatch):
    """The criterion that decides is the one with the most against it; a claim on seeds below 100 says so."""
    tenfold = replace(growth.criteria[0], name="tenfold", text="It is tenfold", at_least=10.0)
    varied = Criterion("varied", "It varies", lambda rows: rows.per_seed("offset", x=1), at_least=0.1)
    monkeypatch.setattr(Growth, "finding", "Numbers grow.")
    for criteria, first, heading, count, decisive in [
        (growth.criteria, 100, "Holds", "1 of 1 criteria supported", "The number doubles: 2 (2 … 2), claimed ≥ 1.5"),
        (
            (*growth.criteria, tenfold),
            0,
            "Does not hold",
            "1 of 2 criteria supported",
            "It is tenfold: 2 (2 … 2), claimed ≥ 10",
        ),
        (
            (*growth.criteria, varied),
            0,
            "Undecided",
            "1 of 2 criteria supported",
            "It varies: 0.1 (-0.1484 … 0.3484), claimed ≥ 0.1",
        ),
    ]:
        monkeypatch.setattr(Growth, "criteria", criteria)
        write(run_study(growth, Plan(seeds=3, first_seed=first), tmp_path), tmp_path / "growth")
        write_results(tmp_path, [growth])
        results = (tmp_path / "RESULTS.md").read_text()
        found = lists(results)
        assert found.pop(heading) == (
            f"- **[Growth](growth/report.md).** Numbers grow. *{count}. The one that decides: {decisive}.*\n"
        )
        assert set(found.values()) == {"None.\n"}
        assert len(found) == 2
        seeds = {0: "seeds 0 to 2, which are for development", 100: "seeds 100 to 102, not looked at before"}
        assert seeds[first] in results


def test_a_bar_in_a_text_does_not_end_its_cell(growth, tmp_path, monkeypatch):
    monkeypatch.setattr(Growth, "statement", "|y| doubles.")
    write(run_study(growth, Plan(seeds=2), tmp_path), tmp_path / "growth")
    write_results(tmp_path, [growth])
    row = next(line for line in (tmp_path / "RESULTS.md").read_text().splitlines() if line.startswith("| [growth]"))
    assert len(re.split(r"(?<!\\)\|", row)) == 6  # four cells, and what is outside


def test_a_number_that_is_not_finite_is_null_in_json(growth, tmp_path, monkeypatch):
    monkeypatch.setattr(growth, "numbers", lambda rows: {"y": interval([math.nan])})
    write(run_study(growth, Plan(seeds=2), tmp_path), tmp_path / "growth")
    text = (tmp_path / "growth" / "summary.json").read_text()
    assert json.loads(text, parse_constant=pytest.fail)["figures"]["y"] is None


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"name": "growth"}', "{" * 10_000])
def test_what_is_not_a_summary_is_refused(tmp_path, text):
    path = tmp_path / "summary.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"summary\.json"):
        read_summary(path)


# --- all studies --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(studies()))
def test_every_study_says_all_before_it_runs(name):
    study = studies()[name]
    assert study.title
    assert study.statement.endswith(".")
    assert study.setting.endswith(".")
    assert "arXiv" in study.source
    assert study.criteria
    names = [c.name for c in study.criteria]
    assert len(set(names)) == len(names)
    for criterion in study.criteria:
        assert (criterion.at_least is None) != (criterion.at_most is None), criterion.name
    for plan in (Plan(seeds=2), Plan(quick=True, seeds=2)):
        cells = study.cells(plan)
        keys = [json.dumps(dict(c.key), sort_keys=True) for c in cells]
        assert len(set(keys)) == len(keys)
        assert {c.key["seed"] for c in cells} == set(plan.seed_range)
        # The runs of a seed are the same however many seeds there are: so a longer run continues a shorter one.
        more = {json.dumps(dict(c.key), sort_keys=True) for c in study.cells(replace(plan, seeds=3))}
        assert set(keys) <= more


def test_every_study_has_its_own_place_in_the_list():
    assert len({s.order for s in studies().values()}) == len(studies())


# --- claims of one's own ------------------------------------------------------------------------------------------


OWN = """
from toyguide.studies import Study
class Own(Study):
    name, order = {name!r}, 0
"""


@pytest.fixture
def claims(tmp_path, monkeypatch):
    """A folder in TOYGUIDE_CLAIMS; afterwards its studies are forgotten."""
    folder = tmp_path / "claims"
    folder.mkdir()
    before = set(sys.modules)
    monkeypatch.setenv("TOYGUIDE_CLAIMS", str(folder))
    forget()
    yield folder
    for name in set(sys.modules) - before:
        if name.startswith("toyguide_claims."):
            del sys.modules[name]
    monkeypatch.undo()
    forget()


def forget():
    studies.cache_clear()
    registry.claims.own_claims.cache_clear()


def test_a_file_in_a_folder_of_ones_own_is_a_study(claims):
    (claims / "mine.py").write_text(OWN.format(name="my-claim"))
    assert list(studies())[-1] == "my-claim", "after those that came with toyguide"
    assert registry.study("my-claim").order == 0


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("import nothing_of_this_name", r"own\.py: cannot be imported \(ModuleNotFoundError"),
        (OWN.format(name="sfg-cost"), r"own\.py: the study name 'sfg-cost' is taken"),
    ],
)
def test_a_file_that_is_no_study_of_its_own_is_refused(claims, text, complaint):
    (claims / "own.py").write_text(text)
    with pytest.raises(InputError, match=complaint):
        studies()


def test_a_name_that_is_taken_twice_or_a_folder_that_is_missing_is_refused(claims, monkeypatch):
    other = claims.parent / "other"
    other.mkdir()
    for folder in (claims, other):
        (folder / "mine.py").write_text(OWN.format(name="my-claim"))
    monkeypatch.setenv("TOYGUIDE_CLAIMS", f"{claims}{os.pathsep}{other}")
    with pytest.raises(InputError, match=r"other/mine\.py: the file name 'mine' is taken by .*claims/mine\.py"):
        studies()
    (other / "mine.py").rename(other / "yours.py")
    forget()
    with pytest.raises(InputError, match=r"other/yours\.py: the study name 'my-claim' is taken"):
        studies()
    monkeypatch.setenv("TOYGUIDE_CLAIMS", "/no/such/folder")
    forget()
    with pytest.raises(InputError, match="TOYGUIDE_CLAIMS: '/no/such/folder': expected a folder"):
        studies()


# --- the command --------------------------------------------------------------------------------------------------


@pytest.fixture
def listed(growth, monkeypatch):
    everything = {"growth": growth, **studies()}
    monkeypatch.setattr(registry, "studies", lambda: everything)
    return growth


def test_the_command_runs_and_prints_the_summary(listed, tmp_path, capsys):
    assert main(["study", "growth", "--quick", "--seeds", "2", "--json", "-o", str(tmp_path / "new")]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["name"], summary["verdict"], summary["figures"]["ratio"]) == ("growth", SUPPORTED, 2.0)
    assert not (tmp_path / "new" / "growth-quick" / "progress.json").exists()
    assert not (tmp_path / "new" / "RESULTS.md").exists()  # which holds full runs


@pytest.mark.parametrize(("flags", "seeds", "first"), [([], 10, 100), (["--quick", "--first-seed", "5"], 3, 5)])
def test_the_seeds_are_those_of_the_plan_unless_given(listed, tmp_path, capsys, flags, seeds, first):
    assert main(["study", "growth", *flags, "--json", "-o", str(tmp_path)]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["seeds"], summary["first_seed"]) == (seeds, first)
    assert {seed for _, seed in RAN} == set(range(first, first + seeds))
    if not flags:
        assert Plan().seed_range == range(first, first + seeds)


def test_the_list_is_what_can_be_run(capsys):
    assert main(["study", "--list", "--json"]) == 0
    described = json.loads(capsys.readouterr().out)
    assert [d["name"] for d in described] == list(studies())
    assert all(d["statement"] and d["source"] for d in described)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["autoguidance-figure-2"], "did you mean 'autoguidance-figure-1'"),
        ([], "expected a name"),
        (["growth", "--seeds", "0"], "seeds 0: expected a whole number from 1"),
        (["growth", "--seeds", "x"], "expected a whole number"),
        (["growth", "--seeds", "-3"], "seeds -3"),
        (["growth", "--first-seed", "-1"], "first seed -1: expected seeds from 0 to 2147483647"),
        (["growth", "--first-seed", "2147483647"], "first seed 2147483647: expected seeds from 0"),
        (["growth", "--device", "tpu"], "--device"),
        (["growth", "-o", "file/inside"], "is a file, expected a folder"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(listed, tmp_path, monkeypatch, capsys, arguments, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    assert main(["study", *arguments]) == 2
    complaint = capsys.readouterr().err
    assert said in complaint
    assert complaint.count("\n") == 1
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    assert not RAN


@pytest.mark.parametrize("place", ["/proc/nothing", "/dev/null/inside"])
def test_a_place_where_nobody_can_make_a_folder_is_one_line(listed, capsys, place):
    assert main(["study", "growth", "-o", place]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not RAN


def test_a_file_in_a_folders_place_is_one_line(listed, tmp_path, capsys):
    (tmp_path / "growth").write_text("")
    assert main(["study", "growth", "-o", str(tmp_path)]) == 2
    assert "cannot be made" in capsys.readouterr().err.splitlines()[-1]


def test_a_folder_that_cannot_be_written_to_is_refused_before_anything_runs(listed, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("os.access", lambda path, mode: False)
    assert main(["study", "growth", "-o", str(tmp_path / "new")]) == 2
    assert "is not writable" in capsys.readouterr().err
    assert not RAN
