"""Number boxes that a screen reader can name."""

from __future__ import annotations

from typing import Any

__all__ = ["named_box"]


def named_box(name: str) -> dict[str, Any]:
    """A widget's ``theme_config`` which names the number box in it.

    The widgets give their two small buttons no name, and the box of a slider none either. The buttons do what the
    arrow keys do in the box: they are left to the mouse.

    Args:
        name: The box's name.
    """
    return {
        "components": {
            "MuiTextField": {"defaultProps": {"slotProps": {"htmlInput": {"aria-label": name}}}},
            "MuiInputAdornment": {"defaultProps": {"aria-hidden": True}},
            "MuiIconButton": {"defaultProps": {"tabIndex": -1}},
        }
    }
