"""Take it with you: the link, the code and the files of what is shown, behind two buttons of the page's header."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import panel as pn
import param
from panel.custom import JSComponent

from toyguide.errors import InputError
from toyguide_apps.explorer_page.code import python_code, shell_code
from toyguide_apps.explorer_page.compute import CancelledError
from toyguide_apps.explorer_page.files import FILES, make
from toyguide_apps.explorer_page.permalink import search_of
from toyguide_apps.explorer_page.state import ExplorerState
from toyguide_apps.explorer_page.views.parts import Look
from toyguide_apps.shared.notices import complain

__all__ = ["TakeAway"]

_LOG = logging.getLogger(__name__)
_SOURCES = Path(__file__).with_name("stage")


class TakeAwayModel(JSComponent):
    """The buttons and their dialog. They ask with a message; ``answer`` is what they get."""

    _esm = _SOURCES / "takeaway.js"
    style: Any = param.String(default=(_SOURCES / "takeaway.css").read_text(encoding="utf-8"))
    offered: Any = param.Dict(default={kind: list(words) for kind, words in FILES.items()})
    answer: Any = param.Dict(default={})
    preparing: Any = param.String(default="", doc="The format that is being made.")

    heard: Callable[[Any], None] | None = None
    _rename: ClassVar[dict[str, str | None]] = {"heard": None}

    def _handle_msg(self, data: Any) -> None:
        if self.heard is not None:
            self.heard(data)


class TakeAway(pn.viewable.Viewer):
    """The link, the code and the files of a scene.

    Args:
        state: The scene.
        look: What is said about it.
    """

    def __init__(self, state: ExplorerState, look: Callable[[], Look]) -> None:
        super().__init__()
        self._state, self._look = state, look
        self._answers = 0
        self._gone = False
        self.model = TakeAwayModel(name="takeaway", margin=(0, 6))
        self.model.heard = self._hear

    def close(self) -> None:
        """Called when the visitor has left: nothing more is made."""
        self._gone = True

    def _hear(self, message: Any) -> None:
        kind = message.get("kind") if isinstance(message, dict) else None
        if kind in ("link", "open"):
            try:
                self._answer(kind=kind, search=search_of(self._state), codes=self._codes())
            except InputError as problem:
                complain(str(problem))
        elif kind == "taken":  # the server need not keep it
            self.model.answer = {}
        elif kind in FILES and not self.model.preparing:
            pn.state.execute(partial(self._make, kind), schedule=True)

    def _codes(self) -> dict[str, str]:
        runs = self._state.request().runs
        return {"Python": python_code(runs), "Command line": shell_code(runs)}

    async def _make(self, kind: str) -> None:
        """Make a file and send it; the visitor may go on meanwhile."""
        if self.model.preparing:
            return
        self._prepare(kind)
        try:
            data = await make(kind, self._state, self._look(), lambda: self._gone)
            if not self._gone:
                self._answer(kind="file", name=f"toyguide.{kind}", data=np.frombuffer(data, np.uint8))
        except CancelledError:
            return
        except InputError as problem:
            complain(str(problem))
        except Exception as problem:
            _LOG.error("a file could not be made", exc_info=problem)
            complain("The file could not be made. See the server's log.")
        finally:
            if not self._gone:
                self._prepare("")

    def _prepare(self, kind: str) -> None:
        with pn.io.hold():
            self.model.preparing = kind

    def _answer(self, **answer: Any) -> None:
        self._answers += 1  # so that the same answer is sent again
        with pn.io.hold():
            self.model.answer = {**answer, "number": self._answers}

    def __panel__(self) -> pn.viewable.Viewable:
        return self.model
