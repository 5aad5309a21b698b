"""Settings in the URL: read once when a session opens, written when a picture has settled.

Everything in a URL is untrusted: each value goes through the same checks as any other setting, and a wrong one is
named and left out. Only what differs from a fresh explorer is written, with the seed and the version of the link:

    1    the view stayed where it was at every noise level
    2    the view follows the noise, unless ``following=false``
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import param

from toyguide import rule
from toyguide.errors import InputError, unknown
from toyguide_apps.explorer_page.panels import Panel
from toyguide_apps.explorer_page.roles import MAIN, known_roles
from toyguide_apps.explorer_page.state import LAYERS, ExplorerState

__all__ = ["query_of", "read", "search_of"]

_VERSION = 2
_FIRST = ("dataset", "label")
_PLAIN = (
    *("limited", "interval", "schedule", "sampler", "steps", "n", "seed"),
    *(
        "bands",
        "layers",
        "opacity",
        "source",
        "plane",
        "window",
        "following",
        "step",
        "point",
        "profile",
        "ends",
        "errors",
        "table",
        "sample",
        "curve",
        "seeds",
    ),
)
_BOOLEANS = {"true": True, "false": False}
_EVERYWHERE = "everywhere"  # no guidance interval
_MAX_LENGTH = 200
_MAX_LENGTHS = {"plane": 1200, "expression": 1000}


def read(state: ExplorerState, query: dict[str, str]) -> list[str]:
    """Take over a URL's settings: a preset's, if it names one, and then the others.

    A role's field is ``field.ROLE=…`` or ``ROLE=…``. A panel is called by its name: ``rule=cfg&w=3``,
    ``ref=cfg&ref.w=2``; a setting of its own has a colon, ``ref:steps=20``, ``rule:field.weak=…``.

    Args:
        state: The settings to change.
        query: The URL's query, decoded.

    Returns:
        What was wrong, one line each.
    """
    left = {k: v for k, v in query.items() if k not in ("v", "theme")}
    problems = _try_version(state, query.get("v", str(_VERSION)))
    if "preset" in left:
        try:
            state.apply(left.pop("preset"))
        except InputError as problem:
            problems.append(f"URL: {problem}")
    if "panels" in left:
        problems += _try(state, "count", left.pop("panels"))
    curve = [left.pop("curve")] if "curve" in left else []
    # In the order in which settings depend on one another; the dataset first.
    for key in [k for k in _FIRST if k in left]:
        problems += _try(state, key, left.pop(key))
    for role in known_roles():
        for key in [k for k in (role, f"field.{role}") if k in left]:
            problems += _try(state, role, left.pop(key))
    for key in [k for k in _PLAIN if k in left]:
        problems += _try(state, key, left.pop(key))
    for index, name in sorted(enumerate(state.names), key=lambda n: n[1] == "rule"):  # what is left belongs to rule
        own = {k.removeprefix(f"{name}:"): left.pop(k) for k in list(left) if k.startswith(f"{name}:")}
        prefix = "" if name == "rule" else f"{name}."
        named = {k: left.pop(k) for k in list(left) if k.startswith(prefix) and k not in state.names}
        if name in left or named:
            chosen = left.pop(name, state.panels[index].rule.key)
            params = {k.removeprefix(prefix or "rule."): v for k, v in named.items()}
            problems += _try_rule(state, index, chosen, params)
        for key, text in own.items():
            problems += _try_own(state, index, key, text)
    for text in curve:  # over a parameter that only a typed rule may have
        problems += _try(state, "curve", text)
    return problems


def query_of(state: ExplorerState) -> dict[str, str]:
    """Version, seed, and the settings that differ from a fresh explorer's of the same dataset."""
    fresh = ExplorerState(len(state.panels), dataset=state.dataset)
    query = {} if state.dataset == ExplorerState().dataset else {"dataset": state.dataset}
    if len(state.panels) != 2:
        query["panels"] = str(len(state.panels))
    query.update({k: _text(getattr(state, k)) for k in ("label", *_PLAIN) if getattr(state, k) != getattr(fresh, k)})
    if state.step == state.steps:  # at the end, wherever that is
        query.pop("step", None)
    for role in {**state.fields, **fresh.fields}:
        if state.chosen(role) != fresh.chosen(role):
            query[MAIN if role == MAIN else f"field.{role}"] = state.chosen(role)
    for name, panel, usual in zip(state.names, state.panels, fresh.panels, strict=True):
        if panel.rule != usual.rule:
            query[name] = panel.rule.key
            for k, v in panel.rule.changed().items():
                plain = name == "rule" and k not in _taken(state)  # as a parameter that was typed may be
                query[k if plain else f"{name}.{k}"] = _text(v)
        for key, text in _own_texts(panel).items():
            if text != _own_texts(usual).get(key):
                query[f"{name}:{key}"] = text
    return {"v": str(_VERSION), "seed": str(state.seed), **query}


def search_of(state: ExplorerState) -> str:
    """The settings as the part of an address from its question mark on."""
    pairs = (f"{quote(k)}={quote(v, safe=',/:@')}" for k, v in query_of(state).items())  # a bare + is read as a space
    return "?" + "&".join(pairs)


def _try_version(state: ExplorerState, text: str) -> list[str]:
    """What a link's version means for the settings that it does not name."""
    if not text.isdecimal() or not 1 <= int(text[:9]) <= _VERSION:
        return [f"URL: v = {text[:40]!r}: expected a link of version 1 to {_VERSION}"]
    if text == "1":
        state.set({"following": False})
    return []


def _try(state: ExplorerState, key: str, text: str) -> list[str]:
    problems = []
    try:
        value = _parse(key, text)
        if key == "layers":  # those that are known, if others are not
            problems = [f"URL: {unknown('layer', name[:40], LAYERS)}" for name in value if name not in LAYERS]
            value = [name for name in value if name in LAYERS]
        state.set({key: value})
    except InputError as problem:
        return [f"URL: {problem}"]
    return problems


def _try_rule(state: ExplorerState, index: int, name: str, params: dict[str, str]) -> list[str]:
    """Choose a panel's rule with those of the parameters that it has and that are in bounds."""
    try:
        declared = rule(name).declared()
    except InputError as problem:
        return [f"URL: {problem}"]
    problems: list[str] = []
    good: dict[str, Any] = {}
    # Texts first: a typed formula declares the other parameters.
    for k, text in sorted(params.items(), key=lambda item: not isinstance(declared.get(item[0]), param.String)):
        try:
            declared = rule(name, **good).declared()
            if k not in declared:
                raise unknown("setting", k[:40], [*_FIRST, *known_roles(), *_PLAIN, *state.names, *declared])
            value = _value(k, text, declared[k])
            rule(name, **{**good, k: value})
            good[k] = value
        except InputError as problem:
            problems.append(f"URL: {problem}")
    state.set_rule(index, rule(name, **good))
    return problems


def _value(key: str, text: str, known: param.Parameter) -> Any:
    """The value of a rule's parameter that a text writes."""
    if isinstance(known, param.String):
        return _parse(key, text)
    return _BOOLEANS.get(text, text) if isinstance(known, param.Boolean) else _number(text[:_MAX_LENGTH])


def _taken(state: ExplorerState) -> set[str]:
    """The names of a link's settings."""
    return {"v", "theme", "preset", "panels", *_FIRST, *_PLAIN, *state.names, *known_roles()}


def _try_own(state: ExplorerState, index: int, key: str, text: str) -> list[str]:
    """Give a panel a setting of its own."""
    panels = list(state.panels)
    own = dict(panels[index].own)
    try:
        if key.startswith("field."):
            role = key.removeprefix("field.")
            own["fields"] = {**own.get("fields", {}), role: _parse(role, text)}
        else:
            own[key] = None if (key, text) == ("interval", _EVERYWHERE) else _parse(key, text)
        panels[index] = Panel(panels[index].rule, own)
        state.set({"panels": tuple(panels)})
    except InputError as problem:
        return [f"URL: {problem}"]
    return []


def _own_texts(panel: Panel) -> dict[str, str]:
    """A panel's own settings as a link writes them."""
    texts = {k: _EVERYWHERE if v is None else _text(v) for k, v in panel.own.items() if k != "fields"}
    return texts | {f"field.{role}": reference for role, reference in panel.own.get("fields", {}).items()}


def _parse(key: str, text: str) -> Any:
    longest = _MAX_LENGTHS.get(key, _MAX_LENGTH)
    if len(text) > longest:
        raise InputError(f"{key} of {len(text)} characters: expected at most {longest}")
    if key in ("interval", "window", "point"):
        return tuple(_number(part) for part in text.split(","))
    if key in ("plane", "ends", "curve"):
        return tuple(text.split(","))
    if key == "layers":
        return [part for part in text.split(",") if part]
    if key == "opacity":
        return {layer: _number(share) for layer, _, share in (part.partition(":") for part in text.split(",") if part)}
    if key in ("limited", "following", "profile", "errors", "table"):
        return _BOOLEANS.get(text, text)
    return _number(text) if key in ("steps", "n", "seed", "step", "sample", "count", "seeds") else text


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
    if isinstance(value, dict):
        return ",".join(f"{layer}:{share:g}" for layer, share in value.items())
    if isinstance(value, tuple | list):
        return ",".join(_text(v) for v in value)
    if isinstance(value, float):
        return f"{value:.6g}"
    return json.dumps(value) if isinstance(value, bool) else str(value)
