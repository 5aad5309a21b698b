"""Settings in the URL: read once when a session opens, written when a picture has settled.

Everything in a URL is untrusted: each value goes through the same checks as any other setting, and a wrong one is
named and left out. Only what differs from a fresh explorer is written.
"""

from __future__ import annotations

import json
from typing import Any

import panel as pn

from toyguide import rule
from toyguide.errors import InputError, unknown
from toyguide.guidance import Rule
from toyguide_apps.state import ExplorerState

__all__ = ["query_of", "read", "write"]

_VERSION = "1"
_RULES = {"rule": "w.", "reference": "ref."}
"""The rules' keys, and what their parameters are prefixed with."""
_PLAIN = (
    *("dataset", "label", "main", "uncond", "weak", "limited", "interval", "sampler", "steps", "n", "seed"),
    *("bands", "layers", "source", "window", "step"),
)
_MAX_LENGTH = 200


def read(state: ExplorerState, query: dict[str, str]) -> list[str]:
    """Take over a URL's settings.

    Args:
        state: The settings to change.
        query: The URL's query, decoded.

    Returns:
        What was wrong, one line each.
    """
    query = {k: v for k, v in query.items() if k not in ("v", "theme")}
    problems = []
    # In the order in which settings depend on one another; the dataset first.
    for key in [k for k in _PLAIN if k in query]:
        problems += _try(state, {key: query[key]})
    for key, prefix in _RULES.items():
        params = {k.removeprefix(prefix): v for k, v in query.items() if k.startswith(prefix)}
        if key in query or params:
            problems += _try_rule(state, key, query.get(key, getattr(state, key).key), params)
    for key in query:
        if key not in _PLAIN and key not in _RULES and not key.startswith(tuple(_RULES.values())):
            problems.append(f"URL: {unknown('setting', key[:40], [*_PLAIN, *_RULES])}")
    return problems


def query_of(state: ExplorerState) -> dict[str, str]:
    """The settings that differ from a fresh explorer's of the same dataset."""
    fresh = ExplorerState(dataset=state.dataset)
    query = {} if state.dataset == ExplorerState().dataset else {"dataset": state.dataset}
    query.update({k: _text(getattr(state, k)) for k in _PLAIN if getattr(state, k) != getattr(fresh, k)})
    for key, prefix in _RULES.items():
        chosen = getattr(state, key)
        if chosen != getattr(fresh, key):
            plain = rule(chosen.key).values()
            query[key] = chosen.key
            query.update({prefix + k: _text(v) for k, v in chosen.values().items() if v != plain[k]})
    return {"v": _VERSION, **query} if query else {}


def write(state: ExplorerState) -> None:
    """Put the settings into the visitor's address bar."""
    if pn.state.location is not None:
        query = query_of(state)
        pn.state.location.search = "?" + "&".join(f"{k}={v}" for k, v in query.items()) if query else ""


def _try(state: ExplorerState, settings: dict[str, str]) -> list[str]:
    try:
        state.set({k: _parse(k, v) for k, v in settings.items()})
    except InputError as problem:
        return [f"URL: {problem}"]
    return []


def _try_rule(state: ExplorerState, key: str, name: str, params: dict[str, str]) -> list[str]:
    try:
        chosen: Rule = rule(name)
    except InputError as problem:
        return [f"URL: {problem}"]
    problems, good = [], {}
    for k, v in params.items():
        value = _number(v)
        try:
            rule(name, **{k: value})
            good[k] = value
        except InputError as problem:
            problems.append(f"URL: {problem}")
    chosen = rule(name, **good)
    state.set({key: chosen})
    return problems


def _parse(key: str, text: str) -> Any:
    if len(text) > _MAX_LENGTH:
        raise InputError(f"{key} of {len(text)} characters: expected at most {_MAX_LENGTH}")
    if key in ("interval", "window"):
        return tuple(_number(part) for part in text.split(","))
    if key == "layers":
        return [part for part in text.split(",") if part]
    if key == "limited":
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
