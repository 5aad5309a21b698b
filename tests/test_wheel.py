"""The wheel works like the checkout: built, installed elsewhere, and run from there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import toyguide as tg

ROOT = Path(__file__).resolve().parent.parent
UNPACKED = ("build", "dist", "*.egg-info", ".git", ".venv", "__pycache__", ".*_cache", "tests", "test-results")

RESULT = {"summary.json", "report.md", "runs.csv", "weights.png"}


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The folder that the wheel was installed to, with nothing but what is in the wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    # Built from a copy: what an earlier build left in the checkout must not get in.
    shutil.copytree(ROOT, source(folder), ignore=shutil.ignore_patterns(*UNPACKED, "networks"))
    (source(folder) / "league" / "probe.png").write_text("{}")
    for study in ("probe", "probe-quick"):  # a result among those that are committed
        (source(folder) / "studies" / study).mkdir()
        for name in (*RESULT, "runs.csv.journal"):
            (source(folder) / "studies" / study / name).write_text("{}")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    build = [
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "--wheel-dir",
        str(folder),
        str(folder / "source"),
    ]
    subprocess.run([*pip, *build], check=True)
    (wheel,) = folder.glob("toyguide-*.whl")
    target = folder / "site"
    subprocess.run([*pip, "install", "--no-deps", "--no-index", "--target", str(target), str(wheel)], check=True)
    return target


def source(folder: Path) -> Path:
    return folder / "source"


def run(installed: Path, *argv: str) -> str:
    """What a process prints that runs outside the checkout and finds the installed copy first."""
    done = subprocess.run(
        [sys.executable, *argv],
        cwd=installed.parent,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_it_is_the_installed_copy_that_runs_and_finds_its_parts(installed):
    code = """
import json, toyguide as tg
from toyguide.datasets.checkpoints import model_names
from toyguide.datasets import dataset_names, dataset_root
from toyguide_apps.serve import EXPLORER, STUDIES
from toyguide_apps.studies_page.results import bundled_root
print(json.dumps([
    tg.__file__, str(dataset_root()), str(EXPLORER), str(STUDIES), str(bundled_root()), dataset_names(),
    sorted(name for kind in ("field", "adapter", "classifier") for name in model_names(kind=kind))
]))
"""
    package, datasets, explorer, page, studies, names, models = json.loads(run(installed, "-c", code))
    assert Path(package) == installed / "toyguide" / "__init__.py"
    assert Path(datasets) == installed / "toyguide_datasets"
    assert Path(explorer) == installed / "toyguide_apps" / "explorer.py"
    assert Path(page) == installed / "toyguide_apps" / "studies.py"
    assert Path(studies) == installed / "toyguide_studies"
    assert names == ["fractal", "simplex16", "two-gaussians", "two-variances"]
    committed = sorted(f"{p.parent.name}/{p.stem}" for p in source(installed.parent).glob("datasets/*/*.safetensors"))
    assert models == committed


def test_everything_that_runs_is_in_it(installed):
    """Every module, and every other file of the apps and the datasets."""
    for name, there in (("toyguide", "toyguide"), ("apps", "toyguide_apps"), ("datasets", "toyguide_datasets")):
        here = source(installed.parent) / name
        expected = {p.relative_to(here) for p in here.rglob("*") if p.is_file()}
        expected = {p for p in expected if "__pycache__" not in p.parts and not p.name.startswith(".")}
        assert expected <= {p.relative_to(installed / there) for p in (installed / there).rglob("*")}


def test_results_of_studies_are_in_it_and_nothing_else_of_their_folders(installed):
    studies = installed / "toyguide_studies"
    assert {p.name for p in (studies / "probe").iterdir()} == RESULT
    assert not (studies / "probe-quick").exists()
    for there in source(installed.parent).glob("studies/*/summary.json"):
        if not there.parent.name.endswith("-quick"):
            assert (studies / there.parent.name / "summary.json").read_bytes() == there.read_bytes()


def test_the_league_is_in_it(installed):
    for there in source(installed.parent).glob("league/*.*"):
        if there.suffix in (".md", ".csv", ".json", ".png"):
            assert (installed / "toyguide_league" / there.name).read_bytes() == there.read_bytes()
    found = run(installed, "-c", "from toyguide_apps.shared.bundled import bundled; print(bundled('league'))")
    assert Path(found.strip()) == installed / "toyguide_league"


def test_the_explorers_parts_import_each_other(installed):
    code = "from toyguide_apps.{0} import page; print(page.__file__)"
    for folder in ("explorer_page", "league_page", "studies_page"):
        page = run(installed, "-c", code.format(folder)).strip()
        assert Path(page) == installed / "toyguide_apps" / folder / "page.py"


def test_it_runs(installed):
    listed = json.loads(run(installed, "-m", "toyguide", "rules", "--json"))
    assert [r["name"] for r in listed] == list(tg.rules())

    path = installed.parent / "run.npz"
    setting = "--dataset two-gaussians --label left --main exact --rule cfg --n 8 --steps 4 --device cpu"
    run(installed, "-m", "toyguide", "sample", *setting.split(), "-o", str(path))
    with np.load(path, allow_pickle=False) as arrays:
        experiment = tg.Experiment.from_json(str(arrays["experiment"]))
        np.testing.assert_allclose(arrays["x"], experiment.run("cpu").x.numpy(), rtol=0, atol=1e-6)
