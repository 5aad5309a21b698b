"""What a finished run depends on, as digests: a run whose digests have changed is stale, and is run again.

A run depends on

    experiment   every setting of its experiment, with its networks by their training settings, and the source of a
                 rule of one's own
    metrics      the names of its metrics and the version of their definitions

and where a function measures it, in place of the experiment, on

    settings     its key, and the plan's ``quick`` and ``n``
    networks     the training settings of the networks that it needs
    code         the function, and what it uses of its own module and of the claims' shared modules

It does not depend on comments, docstrings or layout, nor on a study's texts, criteria and figures: those are evaluated
anew each time. The library below the claims is not followed; ``toyguide.metrics.VERSION`` is raised when a change there
changes what is measured.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
import sys
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from toyguide.errors import InputError
from toyguide.experiment import Experiment
from toyguide.guidance import source_of
from toyguide.metrics import VERSION
from toyguide.studies.base import Cell
from toyguide.studies.plan import Plan
from toyguide.studies.workshop import trained

__all__ = ["code_of", "depends_on", "identity"]

_CLAIMS = "toyguide.studies.claims"


def depends_on(cell: Cell, plan: Plan) -> dict[str, str]:
    """What a run of a cell depends on: a digest of each part, by the part's name."""
    if isinstance(cell.run, Experiment):
        parts: dict[str, Any] = {
            "experiment": cell.run.to_json() + source_of(cell.run.rule),
            "metrics": [VERSION, *cell.metrics],
        }
    else:
        parts = {
            "settings": [dict(cell.key), plan.quick, plan.n],
            "networks": [trained(need, sigma_rel) for need in cell.needs for sigma_rel in need.ema],
            "code": code_of(cell.run),
            "metrics": [VERSION],
        }
    return {name: _digest(part) for name, part in parts.items()}


def identity(key: Mapping[str, Any], depends: Mapping[str, str]) -> str:
    """The ``id`` of a cell's finished run: 16 hexadecimal digits."""
    return _digest([dict(key), dict(depends)])


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


@cache
def code_of(function: Callable[..., Any]) -> str:
    """The code of a function and of everything that it uses in its module and in modules of the same package.

    Raises:
        InputError: If the function is not one of its module's top level.
    """
    module = sys.modules[function.__module__]
    if getattr(module, function.__name__, None) is not function:
        raise InputError(f"cell's function {function.__qualname__!r}: expected one of its module's top level")
    found: dict[tuple[str, str], str] = {}
    _collect(module.__name__, function.__name__, found)
    if not found:  # a module without a file, as in an interactive session
        code = function.__code__
        return f"{code.co_code.hex()} {code.co_names} {code.co_consts}"
    return "\n".join(found[place] for place in sorted(found))


def _collect(module: str, name: str, found: dict[tuple[str, str], str]) -> None:
    """Add the definition of a module's name, and of all names that occur in it."""
    node = _definitions(module).get(name)
    if node is None or (module, name) in found:
        return
    if isinstance(node, ast.ImportFrom):
        _follow(module, name, node, found)
        return
    found[module, name] = ast.unparse(node)
    for inner in ast.walk(node):
        if isinstance(inner, ast.Name):
            _collect(module, inner.id, found)


def _follow(module: str, name: str, node: ast.ImportFrom, found: dict[tuple[str, str], str]) -> None:
    """Add the definition of an imported name, if it comes from another module of the claims."""
    (original,) = (alias.name for alias in node.names if (alias.asname or alias.name) == name)
    whole = f"{node.module}.{original}"
    if not f"{node.module}.".startswith(f"{_CLAIMS}."):
        return
    if whole in sys.modules:
        for each in _definitions(whole):
            _collect(whole, each, found)
    else:
        _collect(str(node.module), original, found)


def _definitions(module: str) -> dict[str, ast.stmt]:
    """The statements that define a module's names; none for a module without a file."""
    try:
        return _parsed(inspect.getsource(sys.modules[module]))
    except (OSError, TypeError):
        return {}


@cache
def _parsed(source: str) -> dict[str, ast.stmt]:
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            node.body = [s for s in node.body if not _is_docstring(s)] or [ast.Pass()]
    found: dict[str, ast.stmt] = {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found[node.name] = node
        elif isinstance(node, ast.ImportFrom):
            found |= {alias.asname or alias.name: node for alias in node.names}
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {n.id: node for target in targets for n in ast.walk(target) if isinstance(n, ast.Name)}
    return found


def _is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
