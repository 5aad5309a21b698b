"""The layer panel, which is the legend too: what each layer is, in words, and what is on."""

from __future__ import annotations

from typing import Any

from toyguide_apps.explorer_page.compute import Picture
from toyguide_apps.explorer_page.layers.curvature import CURVATURE_LEVELS, ERROR_LEVELS
from toyguide_apps.explorer_page.layers.densities import BAND_SHARES
from toyguide_apps.explorer_page.layers.target import IDEAL_LEVELS
from toyguide_apps.explorer_page.layers.twist import CURL_LEVELS, DIVERGENCE_LEVELS
from toyguide_apps.explorer_page.scene import Scene
from toyguide_apps.explorer_page.state import BANDS, LAYERS, SOURCES, ExplorerState

__all__ = ["legend"]

_GROUPS = {
    "Samples": ("samples", "paths", "moves"),
    "Data": ("region", "boundary"),
    "Densities at σ": ("exact-lines", "main-lines", "guide-lines"),
    "Fields": ("score", "guidance"),
    "Geometry": ("saddles", "critical"),
}
_DOCS = {
    "samples": "Dots end inside the exact 99 % region, triangles outside it.",
    "paths": "The way of each sample from noise to data.",
    "moves": "From where a sample is in A to where it is here; heavy if it ends in another branch.",
    "region": "Holds 99 % of the exact data; other classes fainter.",
    "boundary": "Where the most likely class changes, at σ.",
    "exact-lines": "Hold 50, 80 and 99 % of the exact density at σ.",
    "main-lines": "Hold 50, 80 and 99 % of the density of the sampled field, {main}, at σ.",
    "guide-lines": "Hold 50, 80 and 99 % of the density of {guide} at σ, which is guided away from.",
    "score": "Up the log-density at σ, {source}.",
    "guidance": "What the rule adds to the denoised point. Longer is more, not to scale.",
    "saddles": "Where the log-density at σ curves upward, {source}: darker is stronger.",
    "critical": "Circles: modes. Diamonds: saddle points with their unstable direction, {source}.",
}
_IN_PLANE = " In the plane itself, which the samples are projected on."
_DOCS_BEYOND = {
    "samples": "Dots end inside the exact 99 % region of all {dim} dimensions, triangles outside it. Projected, both "
    "lie in the rings.",
    "region": "Where 99 % of the exact samples are when projected on the plane.",
}
"""The same where the plane is a projection."""
_BANDS = {
    "none": "",
    "exact": "Exact density at σ: the innermost band holds 25 % of it.",
    "main": "Density of {main} at σ: the innermost band holds 25 % of it.",
    "guide": "Density of {guide} at σ: the innermost band holds 25 % of it.",
    "ratio": "Left: {guide} likelier. Right: main likelier. CFG-like rules push towards the right end.",
    "regions": "Modes, saddles (σ²λ > 0) and the tail outside 99 %, {source}.",
    "curvature": "Largest σ²λ of the log-density, {source}.",
    "step-error": "Relative error of SFG's product at h = {h}, {source}.",
    "error-ratio": "Length of the guided error over main's: left of 1 the push helps, right of it, it hurts. Blank is "
    "far from the data.",
    "curl": "σ² times the curl of the guided score: 0 where it is the gradient of a density.",
    "divergence": "σ² times the divergence of the guided score, over the dimension: left it gathers, right it spreads.",
    "target": "Density at σ of what the rule is said to sample: the innermost band holds 25 % of it.",
    "ideal-error": "Distance of the guided denoised point from that of the rule's own target, in units of σ.",
}


def _between(levels: tuple[float, ...]) -> list[list[Any]]:
    """A number at each border between bands; the first band has none below it."""
    return [[i + 1, f"{level:g}"] for i, level in enumerate(levels)]


_MARKS: dict[str, list[list[Any]]] = {
    "curvature": _between(CURVATURE_LEVELS)[1::2],
    "step-error": _between(ERROR_LEVELS)[1::2],
    "error-ratio": [[2, "0.25"], [5.5, "1"], [9, "4"]],
    "curl": _between(CURL_LEVELS)[1::2],
    "divergence": _between(DIVERGENCE_LEVELS)[1::2],
    "ideal-error": _between(IDEAL_LEVELS)[1::2],
    "regions": [[0.5, "mode"], [1.5, "saddle"], [2.5, "tail"]],
    **dict.fromkeys(
        ("exact", "main", "guide", "target"),
        [[i + 1, f"{100 * share:g} %"] for i, share in enumerate(BAND_SHARES)][1::2],
    ),
}


def legend(picture: Picture, state: ExplorerState) -> dict[str, Any]:
    """The layers with what is drawn of them in a picture."""
    request = picture.request
    shown = picture.scenes[-1]
    dim = picture.runs[-1].experiment.data.dim
    beyond = dim > 2
    levelled = request.bands != "none" or request.layers - {"samples", "paths", "moves", "region"}
    words = {
        "dim": dim,
        "main": shown.main,
        "guide": request.guide[1],
        "source": {"learned": f"of {shown.main}", "exact": "of the exact field"}[request.source],
        "h": f"{request.product_step:g}",
    }
    rows = {
        key: {
            "key": key,
            "title": LAYERS[key],
            "doc": (_DOCS_BEYOND if beyond else {}).get(key, _DOCS[key]).format(**words),
            "note": _note(key, shown),
            "on": key in state.layers,
            "hidden": key == "moves" and len(picture.runs) < 2,
        }
        for key in LAYERS
    }
    return {
        "groups": [{"title": title, "rows": [rows[key] for key in keys]} for title, keys in _GROUPS.items()],
        "bands": {
            "value": state.bands,
            "options": [[key, title] for key, title in BANDS.items()],
            "note": _BANDS.get(state.bands, "").format(**words) + (_IN_PLANE if beyond else ""),
            "marks": _MARKS.get(state.bands),
        },
        "source": state.source,
        "sources": [[key, title] for key, title in SOURCES.items()],
        "level": f"Everything that depends on σ is drawn at σ = {request.sigma:.3g}." if levelled else "",
    }


def _note(key: str, shown: Scene) -> str:
    """What is said of a layer instead of its usual sentence."""
    if key == "saddles" and shown.saddles is not None and not len(shown.saddles.value):
        return "None here: the log-density curves downward in every direction."
    if key != "critical":
        return ""
    if shown.missing is not None:
        return "Searching …"
    found = shown.critical
    if found is None:
        return ""
    counts = [int((found.index == i).sum()) for i in range(3)]
    others = len(found.index) - sum(counts[:2])
    parts = [_count(counts[0], "mode"), _count(counts[1], "saddle point")]
    parts += [f"{others} of higher index"] if others else []
    beyond = f"; {found.beyond} more off the plane" if found.beyond else ""
    return f"{', '.join(parts)}, found by a short search{beyond}."


def _count(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
