"""Data flows one way: a module imports only from the layers to its left, and the library from no user interface."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# Left to right. A name stands for a module or a package; inside a package imports are free.
LAYERS = [
    {"errors"},
    {"devices", "files", "noise", "palette", "plugins", "_speed"},
    {"fields"},
    {"datasets", "targets"},
    {"training"},
    {"classifier_training"},
    {"geometry"},
    {"guidance"},
    {"samplers", "bridge"},
    {"metrics"},
    {"experiment"},
    {"contract", "distillation", "downloads", "probes"},
    {"sweeps"},
    {"studies"},
    {"league"},
    {"plots"},
    {"toyguide"},
    {"bench"},
    {"commands"},
    {"cli"},
    {"__main__"},
]
LAYER = {name: i for i, layer in enumerate(LAYERS) for name in layer}

# The same of the apps, by the longest of these names that a module's name begins with.
APP_LAYERS = [
    {"shared", "explorer_page.packing", "explorer_page.palette", "explorer_page.precedence"},
    {"explorer_page.code", "explorer_page.costs", "explorer_page.glossary", "explorer_page.own_rules"},
    {"explorer_page.planes", "explorer_page.roles"},
    {"explorer_page.panels", "explorer_page.runs", "studies_page.results"},
    {"explorer_page.presets"},
    {"explorer_page.judged", "explorer_page.layers"},
    {"explorer_page.looks", "explorer_page.scene", "explorer_page.state"},
    {"explorer_page.compute", "explorer_page.permalink", "explorer_page.schedules"},
    {"explorer_page.chooser", "explorer_page.formula_card", "explorer_page.off_switch", "explorer_page.rule_text"},
    {"explorer_page.controls", "explorer_page.links", "explorer_page.views"},
    {"explorer_page.recording"},
    {"explorer_page.export"},
    {"explorer_page.files"},
    {"explorer_page.takeaway"},
    {"explorer_page.session", "studies_page.runner", "studies_page.scenes"},
    {"studies_page.html"},
    {"studies_page.run_bar"},
    {"studies_page.session"},
    {"league_page.results"},
    {"explorer_page.page", "league_page.page", "studies_page.page"},
    {"explorer", "gallery", "league", "studies", "serve"},
    {"bench"},
]
APP_LAYER = {name: i for i, layer in enumerate(APP_LAYERS) for name in layer}


def imported(path: Path) -> set[str]:
    """The full names of the modules that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            found |= {submodule(str(node.module), alias.name) for alias in node.names}
    return found


def submodule(module: str, name: str) -> str:
    """``module.name`` where that is a module of toyguide's, else ``module``."""
    first, *rest = module.split(".")
    path = ROOT.joinpath("apps" if first == "toyguide_apps" else first, *rest, name)
    return f"{module}.{name}" if path.is_dir() or path.with_suffix(".py").is_file() else module


def unit(module: str) -> str:
    """The layer's name for a module: ``toyguide.guidance.base`` is ``guidance``."""
    return module.split(".")[1] if "." in module else module


FILES = sorted(ROOT.glob("toyguide/**/*.py"))
APP_FILES = sorted(p for p in ROOT.glob("apps/**/*.py") if p.name != "__init__.py")


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_come_from_the_left(path):
    here = unit(name_of(path))
    assert here in LAYER, f"{name_of(path)}: say in which layer it is"
    for module in imported(path):
        if module.split(".")[0] == "toyguide" and unit(module) != here:
            assert LAYER[unit(module)] < LAYER[here], f"{name_of(path)} imports {module}, which is not to its left"


def test_no_modules_import_each_other():
    """Also not by way of others, and also not for their types alone."""
    left = {name_of(path): imported(path) - {name_of(path)} for path in FILES}
    while free := {name for name, needed in left.items() if not needed & left.keys()}:
        left = {name: needed for name, needed in left.items() if name not in free}
    assert not left.keys()


def app_unit(module: str) -> str:
    """The layer's name for a module of the apps: ``apps.explorer_page.views.plots`` is ``explorer_page.views``."""
    parts = module.split(".")[1:]
    names = [".".join(parts[:i]) for i in range(len(parts), 0, -1)]
    return next((name for name in names if name in APP_LAYER), "")


@pytest.mark.parametrize("path", APP_FILES, ids=name_of)
def test_imports_in_the_apps_come_from_the_left(path):
    here = app_unit(name_of(path))
    assert here, f"{name_of(path)}: say in which layer it is"
    for module in imported(path):
        there = app_unit(module)
        if module.startswith("toyguide_apps.") and there != here:
            assert APP_LAYER[there] < APP_LAYER[here], f"{name_of(path)} imports {module}, which is not to its left"


@pytest.mark.parametrize("path", [p for p in APP_FILES if p.parent.name == "layers"], ids=name_of)
def test_layers_know_no_interface(path):
    assert not {m.split(".")[0] for m in imported(path)} & {"panel", "bokeh", "panel_material_ui"}


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_the_library_knows_no_interface_and_no_pickle(path):
    banned = {"pickle", "dill", "cloudpickle", "joblib", "panel", "bokeh", "panel_material_ui"}
    if name_of(path) not in (
        "toyguide.commands.app",
        "toyguide.commands.bench",
        "toyguide.commands.export",
        "toyguide.commands.gallery",
        "toyguide.commands.tune",
    ):  # which hand over to the app
        banned |= {"toyguide_apps", "apps"}
    assert not {m.split(".")[0] for m in imported(path)} & banned
    source = path.read_text(encoding="utf-8")
    assert "torch.load" not in source
    assert "allow_pickle=True" not in source


def test_the_check_sees_what_is_wrong(tmp_path):
    wrong = tmp_path / "wrong.py"
    inside = "    import toyguide.plots\n    from toyguide.guidance import base, rule\n"
    wrong.write_text(f"from toyguide import experiment\ndef f():\n{inside}")
    assert imported(wrong) == {
        "toyguide.experiment",
        "toyguide.plots",
        "toyguide.guidance.base",
        "toyguide.guidance",
    }
    assert [unit(m) for m in ("toyguide", "toyguide.plots", "toyguide.guidance.base")] == [
        "toyguide",
        "plots",
        "guidance",
    ]


def test_importing_the_library_imports_nothing_large():
    heavy = ("matplotlib", "scipy", "diffusers", "panel", "bokeh", "pandas", "torchvision")
    code = f"import sys, toyguide; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
