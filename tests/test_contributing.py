"""What CONTRIBUTING.md tells people to do is done here, literally."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import toyguide as tg
from toyguide.guidance.registry import rules_in_files

TEXT = (Path(__file__).resolve().parent.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")


def example(heading: str, language: str) -> str:
    """The code of the first block of a language below a heading."""
    section = TEXT.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    return re.search(rf"```{language}\n(.*?)```", section, re.DOTALL).group(1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder of rules that holds the worked example and nothing else."""
    folder = tmp_path_factory.mktemp("my-rules")
    (folder / "ramped_cfg.py").write_text(example("Add a guidance rule in one file", "python"), encoding="utf-8")
    return folder


def output(folder: Path, *argv: str) -> str:
    """What a process prints that finds the rules and the claims of the folder."""
    environment = {**os.environ, "TOYGUIDE_RULES": str(folder), "TOYGUIDE_CLAIMS": str(folder)}
    done = subprocess.run([sys.executable, *argv], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_the_rule_is_in_the_library(folder):
    """And does what its first line says: w at `high` and above, unguided at `low` and below, linear in log sigma."""
    code = """
import json, toyguide as tg, torch
from toyguide.guidance import Evaluation
data = tg.load_dataset("two-gaussians")
fields = {"main": data.field("left"), "uncond": data.field(None)}
x = torch.tensor([[0.3, 0.2], [0.8, -1.0]], dtype=torch.float64)
rule = tg.rule("ramped-cfg", w=5.0, low=0.1, high=2.5)
def weight(sigma):
    at = Evaluation(fields, x, sigma)
    main, gap = at.denoised("main"), at.denoised("main") - at.denoised("uncond")
    return float(((rule.guide(at, None).denoised - main) * gap).sum() / (gap * gap).sum()) + 1
print(json.dumps([list(tg.rules()), [weight(s) for s in (5.0, 2.5, 0.5, 0.1, 0.05)]]))
"""
    names, weights = json.loads(output(folder, "-c", code))
    assert set(names) == {*tg.rules(), "ramped-cfg"}
    assert weights == pytest.approx([5, 5, 3, 1, 1], abs=1e-6)  # 0.5 is the geometric middle of 0.1 and 2.5


def test_the_rule_is_on_the_command_line(folder, tmp_path):
    (listed,) = (
        r for r in json.loads(output(folder, "-m", "toyguide", "rules", "--json")) if r["name"] == "ramped-cfg"
    )
    assert listed["needs"] == ["main", "uncond"]
    assert {k: (p["default"], p["bounds"]) for k, p in listed["parameters"].items()} == {
        "w": (4.0, [0.0, 30.0]),
        "low": (0.05, [0.001, 1.0]),
        "high": (2.0, [1.01, 10.0]),
    }

    section = TEXT.split("export TOYGUIDE_RULES", 1)[1]
    command = re.search(r"^toyguide (sample .*) -o run.npz$", section, re.MULTILINE).group(1)
    small = ["--n", "16", "--steps", "4", "--device", "cpu", "-o", str(tmp_path / "run.npz")]
    output(folder, "-m", "toyguide", *command.split(), *small)
    with np.load(tmp_path / "run.npz", allow_pickle=False) as arrays:
        experiment = json.loads(str(arrays["experiment"]))
        assert (experiment["rule"], experiment["params"]["low"]) == ("ramped-cfg", 0.2)
        assert np.isfinite(arrays["x"]).all()


def test_the_dataset_loads(tmp_path):
    (tmp_path / "dataset.toml").write_text(example("Add a dataset", "toml"), encoding="utf-8")
    data = tg.load_dataset(tmp_path)
    assert data.labels == ("round", "thin")
    # By hand: shares 1/2, 1/4, 1/4; the variance along x is that within, 0.05/2 + 0.2/2, and that of the means, 1.
    torch.testing.assert_close(data.sigma_data[0], torch.tensor(1.125, dtype=torch.float64).sqrt())


def test_the_training_command_is_understood(tmp_path):
    from toyguide.cli import main

    command = re.search(r"^toyguide (train .*) -o main.safetensors$", TEXT, re.MULTILINE).group(1).split()
    shorter = ["--iterations", "2", "--batch", "64", "--device", "cpu", "-o", str(tmp_path / "main.safetensors")]
    assert main([*command, *shorter]) == 0
    assert tg.load_model(tmp_path / "main.safetensors").label == "A"


def test_its_make_targets_exist():
    makefile = (Path(__file__).resolve().parent.parent / "Makefile").read_text(encoding="utf-8")
    targets = re.findall(r"^make (\w+)", TEXT, re.MULTILINE)
    assert targets
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_the_rule_has_sliders_in_the_explorer(folder):
    code = """
import json
from toyguide_apps.explorer_page.controls import PanelCard
from toyguide_apps.explorer_page.state import ExplorerState
state = ExplorerState(rule="ramped-cfg")
card = PanelCard(state)
card._widgets["high"].value = 3.5
listed = [rule["title"] for family in card._chooser.model.families for rule in family["rules"]]
print(json.dumps([listed, list(card._widgets), state.request().runs[1].params]))
"""
    listed, widgets, params = json.loads(output(folder, "-c", code))
    assert "CFG with a ramped weight" in listed
    assert widgets == ["w", "low", "high"]
    assert params == {"w": 4.0, "low": 0.05, "high": 3.5}


def test_the_study_runs_and_its_verdict_follows(tmp_path):
    """The mean log-density of N(0, v I) under N(0, I) is -log 2 pi - v; CFG's ODE ends at v = 2^(1 - w)."""
    (tmp_path / "example.py").write_text(example("Add a study in one file", "python"), encoding="utf-8")
    code = f"""
import json
from pathlib import Path
from toyguide.studies import Plan, run_study, study
o = run_study(study("cfg-concentrates"), Plan(quick=True, seeds=3, device="cpu"), Path({str(tmp_path)!r}))
print(json.dumps([o.verdict, o.rows.per_seed("log_density", w=1.0), o.sheets[0].panels[0].series[0].y]))
"""
    verdict, unguided, drawn = json.loads(output(tmp_path, "-c", code))
    assert verdict == "supported"
    # Four standard errors of a mean over 1024 points of half a chi-square variable of two degrees, v; and what
    # 32 steps from sigma 80 are off by, up to 0.06 v.
    assert unguided == pytest.approx([-math.log(2 * math.pi) - 1] * 3, abs=4 / 32 + 0.06)
    expected = [-math.log(2 * math.pi) - 2 ** (1 - w) for w in (1, 2, 3)]
    assert drawn == pytest.approx(expected, abs=4 / 32 + 0.06)


def test_the_readme_names_every_rule():
    readme = (Path(__file__).resolve().parent.parent / "README.md").read_text(encoding="utf-8")
    section = readme.split("## Rules\n", 1)[1].split("\n## ", 1)[0]
    assert [key for key in rules_in_files("") if f"`{key}`" not in section] == []
