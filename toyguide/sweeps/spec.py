"""The TOML file of a sweep: common settings, and grids of settings of which every combination is run.

    [experiment]              # the settings that all experiments share
    dataset = "fractal"
    label = "A"

    [grid]                    # every combination; or several [[grid]] in turn
    rule = ["cfg", "autoguidance"]
    params.w = [1.0, 2.0, 4.0]
    fields.weak = ["fractal/weak", "exact+noise:0.2"]
    interval = [[0.1, 1.0], [0.3, 1.6]]
    seeds = 5                 # the seeds 0 to 4; or a list of seeds

The setting written first varies slowest. A single value is a list of one. The label ``union`` is that of no class.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from toyguide.datasets.checkpoints import UNION
from toyguide.datasets.tables import Table, read_table
from toyguide.errors import InputError
from toyguide.experiment import SETTINGS, Experiment

__all__ = ["read_sweep"]

_MOST = 1_000_000
_TABLES = ("params", "fields")
_SWEPT = [name for name in SETTINGS if name not in ("seed", *_TABLES)]


def read_sweep(path: str | Path) -> list[Experiment]:
    """The experiments of a sweep's file, in the order of its grids, without duplicates; their fields are checked too.

    Raises:
        InputError: If anything in the file is wrong; the message names the file and the key.
    """
    table = read_table(Path(path))
    common = table.section("experiment", optional=True)
    base = {name: _value(common, name) for name in SETTINGS if name not in _TABLES and name in common}
    for name in _TABLES:
        section = common.section(name, optional=True)
        base[name] = {key: section.value(key) for key in section.keys()}  # noqa: SIM118, a table is not a dictionary
    common.finish()
    with _naming(table, "experiment"):
        Experiment(**base)

    grids = [_axes(grid) for grid in table.sections("grid")]
    table.finish()
    count = sum(math.prod(len(values) for _, values in axes) for axes in grids)
    if count > _MOST:
        raise table.error("grid", f"makes {count:,} experiments: expected at most {_MOST:,}")
    experiments: dict[Experiment, None] = {}
    for i, axes in enumerate(grids):
        with _naming(table, "grid" if len(grids) == 1 else f"grid[{i}]"):
            made = list(_product(base, axes))
            _check_fields(made)
        experiments |= dict.fromkeys(made)
    return list(experiments)


@contextmanager
def _naming(table: Table, key: str) -> Iterator[None]:
    """Name the file and the key in errors of an experiment."""
    try:
        yield
    except InputError as problem:
        raise table.error(key, str(problem)) from problem


def _axes(grid: Table) -> list[tuple[str, list[Any]]]:
    """The settings that a grid varies and their values; a rule's parameters are named ``params.w``."""
    axes: list[tuple[str, list[Any]]] = []
    for name in grid.keys():  # noqa: SIM118
        if name in _TABLES:
            section = grid.section(name)
            axes += [(f"{name}.{key}", _several(section, key)) for key in section.keys()]  # noqa: SIM118
        elif name == "seeds":
            axes.append(("seed", _seeds(grid)))
        elif name in _SWEPT:
            axes.append((name, _several(grid, name)))
    for name in (*_SWEPT, *_TABLES, "seeds"):
        _ = name in grid  # marks the key as known
    grid.finish()
    return axes


def _product(base: dict[str, Any], axes: list[tuple[str, list[Any]]]) -> Iterator[Experiment]:
    """Every combination; the last setting varies fastest."""
    for combination in itertools.product(*(values for _, values in axes)):
        settings = dict(zip((name for name, _ in axes), combination, strict=True))
        tables = {name: dict(base[name]) for name in _TABLES}
        if settings.get("rule", base.get("rule")) != base.get("rule"):
            tables["params"] = {}
        for name in [k for k in settings if "." in k]:
            table, _, key = name.partition(".")
            tables[table][key] = settings.pop(name)
        yield Experiment(**{**base, **settings, **tables})


def _value(table: Table, name: str) -> Any:
    value = table.value(name)
    return None if name == "label" and value == UNION else value


def _several(table: Table, name: str) -> list[Any]:
    """The values of a setting; a single value needs no list. An interval is itself a list."""
    found = _value(table, name)
    if not isinstance(found, list) or (name == "interval" and found and not isinstance(found[0], list)):
        return [found]
    if not found:
        raise table.error(name, "[]: expected at least one value")
    return [None if name == "label" and value == UNION else value for value in found]


def _seeds(grid: Table) -> list[int]:
    if isinstance(grid.value("seeds"), list):
        return _several(grid, "seeds")
    return list(range(grid.integer("seeds", 1, _MOST)))


def _check_fields(experiments: list[Experiment]) -> None:
    """Check that the fields exist, before anything is run."""
    for e in {(e.dataset, e.label, tuple(e.references().items())): e for e in experiments}.values():
        e.build_fields()
