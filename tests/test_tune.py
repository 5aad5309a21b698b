"""Tuning: the optimiser finds an optimum that is known, and what is no better on fresh seeds is not called better."""

from __future__ import annotations

import json
import shlex

import pytest

import toyguide.league.tuning as tuning
from toyguide.cli import main
from toyguide.errors import InputError
from toyguide.experiment import Experiment
from toyguide.league.tuning import tune
from toyguide.studies.rows import interval
from toyguide.sweeps.batch import identity

pytest.importorskip("optuna")

START = Experiment("two-gaussians", "left", "exact", "exact@union", rule="cfg", n=64, steps=8)


@pytest.fixture
def valley(monkeypatch):
    """Runs whose distance is known: least at w = 2.5, and on fresh seeds 0.1 more or less by chance, or the reverse."""
    turned = {"fresh": False}

    def sweep(experiments, executor, device):
        for e in experiments:
            off = (e.params["w"] - 2.5) ** 2
            fresh = -off if turned["fresh"] and e.seed >= 100 else off
            yield [{"id": identity(e), "sliced_w2": 20 + fresh + 0.1 * (e.seed % 2), "coverage": 1.0, "outliers": 0.0}]

    monkeypatch.setattr(tuning, "sweep", sweep)
    return turned


def test_it_finds_the_optimum_and_is_better_on_fresh_seeds(valley):
    found = tune(START, "distance", 40, range(2), range(100, 104), 0.8)
    assert found.experiment.params["w"] == pytest.approx(2.5, abs=0.2)
    assert found.trials == 40
    assert found.better == "yes"
    off = (found.experiment.params["w"] - 2.5) ** 2
    assert found.difference.mean == pytest.approx(off - 1.5**2)  # the defaults have w = 4
    assert found.difference == interval(
        a["sliced_w2"] - b["sliced_w2"] for a, b in zip(found.best, found.default, strict=True)
    )


def test_what_is_worse_on_fresh_seeds_is_not_better(valley):
    valley["fresh"] = True
    assert tune(START, "distance", 12, range(2), range(100, 104), 0.8).better == "no"


def test_where_nothing_beats_the_defaults_nothing_is_shown(monkeypatch, valley):
    at_best = Experiment("two-gaussians", "left", "exact", "exact@union", rule="cfg", params={"w": 2.5}, n=64, steps=8)
    found = tune(at_best, "distance", 8, range(2), range(100, 103), 0.8)
    assert found.better == "not shown"
    assert found.experiment == at_best.with_seed(100)


def test_refused():
    with pytest.raises(InputError, match="not among the tuning seeds"):
        tune(START, "distance", 8, range(2), range(1, 5), 0.8)
    with pytest.raises(InputError, match="no real parameter"):
        tune(Experiment("two-gaussians", rule="none"), "distance", 8, range(2), range(100, 102), 0.8)


def test_the_command(capsys):
    argv = ["tune", "cfg", "--dataset", "two-gaussians", "--label", "left", "--aim", "distance", "--trials", "6"]
    assert main([*argv, "--seeds", "1", "--fresh", "3", "--steps", "4", "--n", "64", "--device", "cpu", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["better"] in ("yes", "no", "not shown")
    assert found["difference"][1] <= found["difference"][0] <= found["difference"][2]
    run = Experiment.from_json(json.dumps(found["experiment"]))
    assert (run.n, run.steps, run.seed, run.label) == (64, 4, 100, "left")
    words = shlex.split(found["command"])
    assert words[:2] == ["toyguide", "sample"]
    assert found["params"].keys() <= {"w"}
    assert all(f"{k}={v}" in words for k, v in found["params"].items())
    assert found["explorer"].startswith("explorer?")


def test_the_command_it_prints_makes_the_run_that_was_found(capsys, tmp_path):
    from toyguide.experiment import Result

    argv = ["tune", "autoguidance", "--label", "A", "--aim", "distance", "--trials", "4", "--seeds", "1"]
    assert main([*argv, "--fresh", "2", "--steps", "2", "--n", "16", "--device", "cpu", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    words = shlex.split(found["command"])[1:]
    assert main([*words[:-1], str(tmp_path / "run.npz"), "--device", "cpu"]) == 0
    assert Result.load(tmp_path / "run.npz").experiment == Experiment.from_json(json.dumps(found["experiment"]))


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["cgf"], "unknown rule 'cgf'"),
        (["cfg", "--aim", "outlier"], "did you mean 'outliers'"),
        (["cfg", "--at-coverage", "1.5"], "expected a share from 0 to 1"),
        (["cfg", "--trials", "1"], "--trials 1: expected a whole number from 2"),
        (["cfg", "--fresh", "1"], "--fresh 1: expected a whole number from 2"),
    ],
)
def test_what_the_command_refuses(argv, message, capsys):
    assert main(["tune", *argv]) == 2
    assert message in capsys.readouterr().err
