"""The Python text and the command lines that repeat the explorer's runs and print their metrics."""

from __future__ import annotations

import inspect
import math
import shlex
from collections.abc import Mapping, Sequence
from string import ascii_uppercase
from textwrap import indent
from typing import Any

from toyguide import Experiment, rule
from toyguide.errors import InputError
from toyguide.experiment import SETTINGS

__all__ = ["python_code", "shell_code"]

_WIDTH = 100
_DEFAULTS = {name: p.default for name, p in inspect.signature(Experiment).parameters.items()}
_KEYWORDS = ("main", "uncond", "weak")  # roles whose fields are settings by themselves
_PYTHON = """{imports}import toyguide as tg
from toyguide.metrics import METRICS

runs = {{
{runs}
}}
for name, experiment in runs.items():
    result = experiment.run()
    found = result.metrics()
    print(name, result)
    for key, metric in METRICS.items():
        if found.get(key) is not None:
            print(f"    {{metric.title}}: {{found[key]:{{metric.format}}}}")
"""


def python_code(runs: Sequence[Experiment]) -> str:
    """A program that makes the same runs, one for each panel, and prints their metrics.

    Raises:
        InputError: If a field of a run is a Python object and not a reference.
    """
    parts = [f"{name!r}: {_call(_told(run))}," for name, run in zip(ascii_uppercase, runs, strict=False)]
    infinite = any(math.inf in run.params.values() for run in runs)
    imports = "import math\n\n" if infinite else ""
    return _PYTHON.format(imports=imports, runs=indent("\n".join(parts), "    "))


def shell_code(runs: Sequence[Experiment]) -> str:
    """Command lines that make the same runs, one for each panel, and print their metrics.

    Raises:
        InputError: If a field of a run is a Python object and not a reference.
    """
    lines = []
    for name, run in zip(ascii_uppercase, runs, strict=False):
        file = f"{name}.npz"
        words = ["toyguide", "sample", *_flags(_told(run)), "-o", file]
        lines.append(f"{shlex.join(words)} && toyguide metrics {file}\n")
    return "".join(lines)


def _told(run: Experiment) -> dict[str, Any]:
    """The settings that must be given for a run: the dataset, and what differs from what would be filled in."""
    given = run.settings()
    params = rule(run.rule, **given.pop("params")).changed()
    fields = _fields(given | {"fields": dict(run.references()), "params": params})
    named = {role: fields.pop(role) for role in _KEYWORDS if role in fields}
    told = {name: value for name, value in given.items() if name == "dataset" or value != _DEFAULTS[name]}
    told |= {"params": params, "fields": fields}
    return {k: told[k] if k in told else named[k] for k in SETTINGS if told.get(k) or k in named}


def _fields(settings: Mapping[str, Any]) -> dict[str, str]:
    """The fields of an experiment without those that others stand for already."""
    fields, whole = dict(settings["fields"]), Experiment(**settings)
    for role in reversed(list(fields)):
        fewer = {k: v for k, v in fields.items() if k != role}
        try:
            fields = fewer if Experiment(**{**settings, "fields": fewer}) == whole else fields
        except InputError:  # nothing can stand for it
            continue
    return fields


def _call(settings: Mapping[str, Any]) -> str:
    """``tg.Experiment(...)`` on one line, or with a line for each setting."""
    words = [f"{name}={_literal(value)}" for name, value in settings.items()]
    line = f"tg.Experiment({', '.join(words)})"
    if len(line) <= _WIDTH:
        return line
    return "tg.Experiment(\n" + "".join(f"    {word},\n" for word in words) + ")"


def _literal(value: Any) -> str:
    """A value as Python writes it."""
    if not isinstance(value, dict):
        return repr(value)
    return "{" + ", ".join(f"{k!r}: {'math.inf' if v == math.inf else repr(v)}" for k, v in value.items()) + "}"


def _flags(settings: Mapping[str, Any]) -> list[str]:
    """The same as arguments of ``toyguide sample``; ``--name=value``, since a value may begin with a dash."""
    found = []
    for name, value in settings.items():
        if name == "params":
            found += [f"--set={k}={str(v).lower() if isinstance(v, bool) else v}" for k, v in value.items()]
        elif name == "fields":
            found += [f"--field={role}={reference}" for role, reference in value.items()]
        elif name == "interval":
            found.append("--interval={},{}".format(*value))
        else:
            found.append(f"--{name.replace('_', '-')}={value}")
    return found
