"""The layers of a panel, drawn below its samples at one noise level; panels of one class and main field share them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from toyguide import Experiment
from toyguide_apps.explorer_page.layers import curvature, densities
from toyguide_apps.explorer_page.layers.critical import Critical, critical_at_hand
from toyguide_apps.explorer_page.layers.densities import Arrows, Curves, Spot
from toyguide_apps.explorer_page.layers.errors import error_map
from toyguide_apps.explorer_page.layers.target import target_map
from toyguide_apps.explorer_page.layers.twist import twist_map
from toyguide_apps.explorer_page.panels import Request
from toyguide_apps.explorer_page.roles import MAIN, union_role

__all__ = ["Checked", "Scene", "scene", "scene_key", "spot_of"]

Checked = Callable[[Callable[[], Any]], Any]
"""Calls a function, unless the picture is no longer wanted."""


@dataclass(frozen=True, eq=False)
class Scene:
    """The layers.

    Attributes:
        key: What the layers depend on, but for the noise level.
        main: The field that is sampled, by reference.
        image: The background's bands, uint8, or None.
        curves: Level lines, boundary and outline by layer.
        score: Score arrows.
        saddles: Eigenvectors.
        critical: The critical points, or None where they are not wanted or not found yet.
        missing: Where and of which field critical points are still to be searched for, if they are.
        empty: Why there is no background, if one is wanted and there is none.
    """

    key: object
    main: str
    image: np.ndarray | None
    curves: dict[str, Curves]
    score: Arrows | None
    saddles: Arrows | None
    critical: Critical | None
    missing: tuple[Spot, str] | None
    empty: str = ""


_SURFACES: dict[str, Callable[[Spot, str, Request], np.ndarray]] = {
    "regions": lambda spot, source, _: curvature.region_map(spot, source),
    "curvature": lambda spot, source, _: curvature.curvature(spot, source),
    "step-error": lambda spot, source, request: curvature.product_errors(spot, source, request.product_step),
}


# Backgrounds that differ where only the rules do.
_OF_THE_RULE = ("error-ratio", "curl", "divergence", "target", "ideal-error")


def spot_of(request: Request, experiment: Experiment, device: str) -> Spot:
    """Where a panel's layers are computed."""
    return Spot(experiment.dataset, experiment.label, request.sigma, request.window, device, request.plane)


def scene_key(request: Request, experiment: Experiment) -> object:
    """What a panel's layers depend on besides the request: equal for panels that share them."""
    if request.bands not in _OF_THE_RULE:
        return experiment.label, str(experiment.main)
    return experiment, id(type(experiment.build_rule()))  # one of a file that has changed says the same of itself


def scene(request: Request, experiment: Experiment, device: str, checked: Checked) -> Scene:
    """Compute a panel's layers.

    Args:
        request: What to draw.
        experiment: The panel's run.
        device: Where to compute.
        checked: Asked before each layer; raises ``CancelledError`` if the picture is no longer wanted.
    """
    spot = spot_of(request, experiment, device)
    main = str(experiment.main)
    exact = request.source == "exact"
    source = "exact" if exact else main
    role, guide = request.guide

    def wanted(make: Callable[[], Any], layer: str) -> Any:
        return checked(make) if layer in request.layers else None

    density = {"exact": ("exact", MAIN), "main": (main, MAIN), "guide": (guide, role)}
    image, empty = None, ""
    if request.bands == "ratio":
        other = ("exact@union", union_role().name) if exact else (guide, role)
        image = checked(lambda: densities.ratio(spot, source, *other))
    elif request.bands == "error-ratio":
        ratio = checked(lambda: error_map(spot, experiment))
        image, empty = ratio.image, ratio.empty
    elif request.bands in ("curl", "divergence"):
        image, empty = checked(lambda: twist_map(spot, experiment, request.bands))
    elif request.bands in ("target", "ideal-error"):
        image, empty = checked(lambda: target_map(spot, experiment, request.bands))
    elif request.bands in _SURFACES:
        image = checked(lambda: _SURFACES[request.bands](spot, source, request))
    elif request.bands != "none":
        image = checked(lambda: densities.bands(spot, *density[request.bands]))

    def lines(field: tuple[str, str]) -> Callable[[], Curves]:
        return lambda: densities.lines(spot, *field)

    curves = {f"{name}-lines": wanted(lines(field), f"{name}-lines") for name, field in density.items()}
    curves["boundary"] = wanted(lambda: densities.boundary(spot), "boundary")
    # The outlines are those of the data, at sigma = 0, wherever the time line is.
    still = replace(spot, sigma=0.0, window=request.still_window)
    curves["region"] = wanted(lambda: densities.region(still), "region")
    curves["other-regions"] = wanted(lambda: densities.other_regions(still), "region")

    critical = missing = None
    if "critical" in request.layers:
        on_cpu = replace(spot, device="cpu")
        critical = critical_at_hand(on_cpu, source)
        missing = (on_cpu, source) if critical is None else None
    still_key = (request.bands, request.layers, request.source, request.still_window, request.guide, request.plane)
    return Scene(
        key=(scene_key(request, experiment), *still_key, request.product_step),
        main=main,
        image=image,
        curves={k: v for k, v in curves.items() if v is not None},
        score=wanted(lambda: densities.score_arrows(spot, source), "score"),
        saddles=wanted(lambda: densities.saddles(spot, source), "saddles"),
        critical=critical,
        missing=missing,
        empty=empty,
    )
