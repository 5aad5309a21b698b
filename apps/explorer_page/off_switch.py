"""A rule's parameter with a button that switches it off, and on again where it was."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import panel as pn
import panel_material_ui as pmui

__all__ = ["OffSwitch", "last_finite"]


class OffSwitch(pn.viewable.Viewer):
    """The button beside a parameter's control.

    Args:
        key: The parameter's name.
        known: Its declaration.
        off: The value that switches it off, which may be infinite.
        value: Its value now.
        widget: Its control. Where the value is infinite, the control rests at the last finite one.
        change: Called with the value that the button chooses.
    """

    def __init__(
        self, key: str, known: Any, off: float, value: float, widget: Any, change: Callable[[float], None]
    ) -> None:
        super().__init__()
        self._key, self._off, self._widget, self._change = key, off, widget, change
        self._last = value if value != off else _other(known, off)
        self._following = False
        self.button = pmui.Toggle(
            label="off",
            value=value == off,
            size="small",
            description=f"off: {key} = {off:g}",
            margin=(6, 8, 0, 0),
            theme_config={"components": {"MuiToggleButton": {"defaultProps": {"aria-label": f"{key} off"}}}},
        )
        self.button.param.watch(lambda event: self._press(event.new), "value")
        self.show(value)

    def show(self, value: float) -> None:
        """Follow the parameter's value."""
        self._following = True
        self.button.value = value == self._off
        self._following = False
        if value != self._off:
            self._last = value
        finite = math.isfinite(value)
        self._widget.param.update(disabled=not finite, label=self._key if finite else f"{self._key} is off")
        if finite:
            self._widget.value = value

    def _press(self, off: bool) -> None:
        if not self._following:
            self._change(self._off if off else self._last)

    def __panel__(self) -> pn.viewable.Viewable:
        return pn.Row(self._widget, self.button, margin=0, sizing_mode="stretch_width")


def last_finite(known: Any, value: float) -> Any:
    """A parameter's value as a slider can show it: in the place of an infinite one its default, or the slider's end."""
    if math.isfinite(value):
        return value
    return known.default if math.isfinite(known.default) else known.get_soft_bounds()[1]


def _other(known: Any, off: float) -> Any:
    """A value that does not switch a parameter off: its default, or the end of its slider that is further away."""
    if known.default != off:
        return known.default
    low, high = known.get_soft_bounds()
    return high if off - low <= high - off else low
