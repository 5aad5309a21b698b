"""Settings in the URL: read once when a session opens, written when a picture has settled.

Everything in a URL is untrusted: each value goes through the same checks as any other setting, and a wrong one is
named and left out. Only what differs from a fresh explorer is written.
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import panel as pn

from toyguide import rule
from toyguide.errors import InputError, unknown
from toyguide_apps.explorer_page.state import ExplorerState

__all__ = ["query_of", "read", "write"]

_VERSION = "1"
_RULES = {"rule": ("rule", ""), "reference": ("ref", "ref.")}
"""The two rules in the settings: what they are called in a URL, and what their parameters are prefixed with."""
_PLAIN = (
    *("dataset", "label", "main", "uncond", "weak", "limited", "interval", "sampler", "steps", "n", "seed"),
    *("bands", "layers", "source", "plane", "window", "step", "point", "profile", "ends"),
)
_MAX_LENGTH = 200
_MAX_LENGTHS = {"plane": 1200}


def read(state: ExplorerState, query: dict[str, str]) -> list[str]:
    """Take over a URL's settings.

    Args:
        state: The settings to change.
        query: The URL's query, decoded.

    Returns:
        What was wrong, one line each.
    """
    left = {k: v for k, v in query.items() if k not in ("v", "theme")}
    problems = []
    # In the order in which settings depend on one another; the dataset first.
    for key in [k for k in _PLAIN if k in left]:
        problems += _try(state, key, left.pop(key))
    for key, (name, prefix) in reversed(_RULES.items()):
        params = {k: left.pop(k) for k in list(left) if k.startswith(prefix) and k not in ("rule", "ref")}
        if name in left or params:
            chosen = left.pop(name, getattr(state, key).key)
            problems += _try_rule(state, key, chosen, {k.removeprefix(prefix): v for k, v in params.items()})
    return problems


def query_of(state: ExplorerState) -> dict[str, str]:
    """The settings that differ from a fresh explorer's of the same dataset."""
    fresh = ExplorerState(dataset=state.dataset)
    query = {} if state.dataset == ExplorerState().dataset else {"dataset": state.dataset}
    query.update({k: _text(getattr(state, k)) for k in _PLAIN if getattr(state, k) != getattr(fresh, k)})
    for key, (name, prefix) in _RULES.items():
        chosen = getattr(state, key)
        if chosen != getattr(fresh, key):
            plain = rule(chosen.key).values()
            query[name] = chosen.key
            query.update({prefix + k: _text(v) for k, v in chosen.values().items() if v != plain[k]})
    return {"v": _VERSION, **query} if query else {}


def write(state: ExplorerState) -> None:
    """Put the settings into the visitor's address bar."""
    if pn.state.location is not None:
        query = query_of(state)
        pairs = (f"{quote(k)}={quote(v, safe=',/:@')}" for k, v in query.items())  # a bare + would be read as a space
        pn.state.location.search = "?" + "&".join(pairs) if query else ""


def _try(state: ExplorerState, key: str, text: str) -> list[str]:
    try:
        state.set({key: _parse(key, text)})
    except InputError as problem:
        return [f"URL: {problem}"]
    return []


def _try_rule(state: ExplorerState, key: str, name: str, params: dict[str, str]) -> list[str]:
    """Choose a rule with those of the parameters that it has and that are in bounds."""
    try:
        declared = rule(name).declared()
    except InputError as problem:
        return [f"URL: {problem}"]
    problems, good = [], {}
    for k, text in params.items():
        try:
            if k not in declared:
                raise unknown("setting", k[:40], [*_PLAIN, "rule", "ref", *declared])
            value = _number(text[:_MAX_LENGTH])
            rule(name, **{k: value})
            good[k] = value
        except InputError as problem:
            problems.append(f"URL: {problem}")
    state.set({key: rule(name, **good)})
    return problems


def _parse(key: str, text: str) -> Any:
    longest = _MAX_LENGTHS.get(key, _MAX_LENGTH)
    if len(text) > longest:
        raise InputError(f"{key} of {len(text)} characters: expected at most {longest}")
    if key in ("interval", "window", "point"):
        return tuple(_number(part) for part in text.split(","))
    if key in ("plane", "ends"):
        return tuple(text.split(","))
    if key == "layers":
        return [part for part in text.split(",") if part]
    if key in ("limited", "profile"):
        return {"true": True, "false": False}.get(text, text)
    return _number(text) if key in ("steps", "n", "seed", "step") else text


def _number(text: str) -> Any:
    """The number that a text writes, or the text itself for the checks to refuse."""
    try:
        return int(text)
    except ValueError:
        try:
            return float(text)
        except ValueError:
            return text


def _text(value: Any) -> str:
    if isinstance(value, tuple | list):
        return ",".join(_text(v) for v in value)
    if isinstance(value, float):
        return f"{value:.6g}"
    return json.dumps(value) if isinstance(value, bool) else str(value)
