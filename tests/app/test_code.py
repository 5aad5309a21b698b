"""The explorer's code, run as printed: the same points and numbers, and nothing said that goes without saying."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from toyguide import Experiment
from toyguide.errors import InputError
from toyguide.experiment import Result
from toyguide.metrics import METRICS
from toyguide_apps.explorer_page.code import python_code, shell_code

FLAGGED = '''"""A rule with a switch."""

import param

from toyguide.guidance import Guided, Rule


class Flagged(Rule):
    key = "flagged"
    title = "Flagged"
    family = "One field"
    formula = "D"
    source = "a test"
    summary = "Shrinks what is denoised, if it is told to."
    needs = ("main",)
    on = param.Boolean(False, doc="Whether to shrink.")

    def guide(self, at, memory):
        return Guided(at.denoised("main") * (0.5 if self.on else 1.0))
'''

SMALL = {"n": 48, "steps": 5}
RUNS = [
    {"dataset": "fractal", "label": "B", "main": "exact", "rule": "cfg", "params": {"w": 2.5}, "seed": 7, **SMALL},
    {
        "dataset": "fractal",
        "label": "A",
        "rule": "autoguidance",
        "weak": "mean(fractal/weak, exact+noise:0.2)",
        "interval": (0.05, 1.6),
        "schedule": "early:0.6",
        **SMALL,
    },
    {
        "dataset": "simplex16",
        "rule": "sfg",
        "params": {"w": 1.0, "h": 0.05, "sign": "score"},
        "sampler": "euler",
        **SMALL,
    },
    {
        "dataset": "two-gaussians",
        "label": "left",
        "main": "exact",
        "rule": "flagged",
        "params": {"on": True},
        "sigma_max": 3.0,
        "rho": 5.0,
        "n": 40,
    },
]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rules")
    (folder / "flagged.py").write_text(FLAGGED)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOYGUIDE_RULES", str(folder))
        yield [Experiment(**run) for run in RUNS]


@pytest.fixture(scope="module")
def results(runs):
    return [run.run("cpu") for run in runs]


def printed(text):
    """The metrics in a program's or a command's output, one table for each run."""
    tables = []
    titles = {metric.title: name for name, metric in METRICS.items()}
    for line in text.splitlines():
        match = re.match(r" *(.+?)(?::| {2,}) *(-?[\d.]+)", line)
        if match and match[1] in titles:
            if titles[match[1]] == "outliers":
                tables.append({})
            tables[-1][titles[match[1]]] = match[2]
    return tables


def assert_the_metrics_of(results, tables):
    assert len(tables) == len(results)
    for result, table in zip(results, tables, strict=True):
        expected = {k: v for k, v in result.metrics().items() if k in METRICS and k != "seconds"}
        assert table.keys() - {"seconds"} == expected.keys()
        for name, value in expected.items():
            last = 10.0 ** -len(table[name].partition(".")[2])
            assert float(table[name]) == pytest.approx(value, abs=1.01 * last), name


def test_the_program_prints_the_metrics_of_the_same_runs(runs, results, tmp_path):
    program = tmp_path / "runs.py"
    program.write_text(python_code(runs))
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert_the_metrics_of(results, printed(done.stdout))


def test_the_program_describes_equal_experiments(runs):
    text = python_code(runs)
    found = {}
    exec(text[: text.index("for name")], found)
    assert list(found["runs"]) == ["A", "B", "C", "D"]
    for run, again in zip(runs, found["runs"].values(), strict=True):
        assert again == run


def test_the_command_lines_write_the_same_points_and_print_their_metrics(runs, results, tmp_path):
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["sh", "-e", "-c", shell_code(runs)],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env={**os.environ, "PATH": path},
    )
    for name, result in zip("ABCD", results, strict=True):
        again = Result.load(tmp_path / f"{name}.npz")
        assert again.experiment == result.experiment
        np.testing.assert_allclose(again.x, result.x, atol=1e-4)
    assert_the_metrics_of(results, printed(done.stdout))


def test_only_what_differs_is_said():
    assert "{\n    'A': tg.Experiment(dataset='fractal'),\n}" in python_code([Experiment()])
    usual = Experiment("fractal", "A", "fractal/main", weak="fractal/weak", uncond="exact", rule="autoguidance")
    assert shell_code([usual]) == (
        "toyguide sample --dataset=fractal --label=A --rule=autoguidance -o A.npz && toyguide metrics A.npz\n"
    )


def test_a_field_that_is_an_object_cannot_be_written():
    run = Experiment("two-gaussians", "left", main=Experiment("two-gaussians").data.field("left"))
    for write in (python_code, shell_code):
        with pytest.raises(InputError, match="expected a reference"):
            write([run])
