"""One visitor's explorer: settings, views, and the loop that keeps the picture up to date."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import replace
from typing import Any

import panel as pn
import panel_material_ui as pmui
import param

from toyguide.errors import InputError
from toyguide_apps.explorer_page.compute import FIRST, CancelledError, Job, Picture, at_hand, compute, search
from toyguide_apps.explorer_page.controls import (
    LayerBar,
    LookButtons,
    PlaneCard,
    RuleCard,
    SceneCard,
    interval_controls,
    preset_menu,
)
from toyguide_apps.explorer_page.panels import Request
from toyguide_apps.explorer_page.permalink import read, write
from toyguide_apps.explorer_page.presets import presets
from toyguide_apps.explorer_page.state import ExplorerState
from toyguide_apps.explorer_page.views.errors import ErrorsPanel
from toyguide_apps.explorer_page.views.inspector import InspectorPanel
from toyguide_apps.explorer_page.views.plots import Plots
from toyguide_apps.explorer_page.views.profile import ProfilePanel
from toyguide_apps.explorer_page.views.responses import ResponsesPanel
from toyguide_apps.explorer_page.views.status import Status
from toyguide_apps.explorer_page.views.table import MetricsTable
from toyguide_apps.explorer_page.views.trail import TrailPanel
from toyguide_apps.shared.notices import complain, notice, told

__all__ = ["Explorer"]

_LOG = logging.getLogger(__name__)
_STILL = 0.2  # seconds without a move after which a held slider gets its whole picture
_LATE = 0.2  # seconds of computing after which the page shows that it is busy; most pictures take less
_PAUSE = 0.5  # seconds without a change before the URL is written


class Explorer(pn.viewable.Viewer):
    """The whole explorer, for a page or a notebook."""

    def __init__(self, state: ExplorerState | None = None) -> None:
        super().__init__()
        self.state = state or ExplorerState()
        self.picture: Picture | None = None
        self._wanted: Request | None = self._described()
        self._asked: Job
        self._news = asyncio.Event()
        self._preset: Request | None = None
        self.menu = preset_menu()
        self.menu.param.watch(self._choose, "value")
        self._running = False
        self._given_up = False
        self._gone = False
        self._warned: list[str] = []
        self._plots = Plots(self.state)
        self._table = MetricsTable()
        self._status = Status()
        self.look = LookButtons(self.state)
        self._inspector = InspectorPanel(self.state)
        self._profile = ProfilePanel(self.state)
        self._errors = ErrorsPanel(self.state)
        self._trail = TrailPanel(self.state)
        self._responses = ResponsesPanel(self.state)
        self.state.param.watch(self._changed, [k for k in self.state.param if k != "name"])

    def enter(self, query: dict[str, str]) -> list[str]:
        """Start from a URL's settings, with their picture if it is cached.

        Returns:
            The invalid settings, which are ignored, one line each.
        """
        self._running = True  # draws nothing until the page is loaded
        self._responses.wait()
        self._plots.listen()
        problems = read(self.state, query)
        made = self._wanted and at_hand(self._wanted)
        if made:
            self._show(made)
        return problems

    def open(self, problems: list[str]) -> None:
        """Called when the page is loaded: report invalid settings, and draw what is missing."""
        for problem in problems:
            complain(problem)
        self._running = False
        self._responses.open()
        _send_at_once()
        pn.state.execute(self.refresh, schedule=True)

    def close(self) -> None:
        """Called when the visitor has left: stop computing for this session."""
        self._gone = True
        self._responses.close()

    @told
    def _choose(self, event: param.parameterized.Event) -> None:
        """Apply the preset chosen in the menu."""
        if not event.new:
            return
        self._preset = None
        self.state.apply(event.new)
        self._preset = self._scene()
        self._status.say(presets()[event.new].look)

    def _described(self) -> Request | None:
        """The picture that the settings describe, or None if they do not fit together."""
        try:
            return self.state.request()
        except InputError:
            return None

    def _scene(self) -> Request | None:
        """The wanted request without where the visitor looks: scrubber, window, point, curves, followed sample."""
        anywhere: dict[str, Any] = dict(sigma=1.0, at_end=False, window=(0.0, 0.0, 1.0, 1.0), point=None, ends=None)
        anywhere |= {"errors": False, "sample": None}
        return self._wanted and replace(self._wanted, **anywhere)

    def _leave_preset(self) -> None:
        """Clear the preset menu and its sentence once a setting differs from the preset."""
        if self._preset is not None and self._scene() != self._preset:
            self._preset = None
            self.menu.value = ""
            self._status.say("")

    async def refresh(self) -> None:
        """Compute and show pictures until the settings no longer change; the newest change always wins.

        A whole picture is cancelled at the first change. While a slider is held, and after a cancelled picture, a
        coarse picture of few samples comes first, and is cancelled only when the slider is released. So something new
        is shown however fast the changes come.
        """
        if self._running or self._gone:
            return
        self._running = True
        self._news = asyncio.Event()
        late = asyncio.get_running_loop().call_later(_LATE, self._busy, True)
        try:
            while not self._gone and (request := self._next()) is not None:
                if self._begun(request) and self.state.held and await self._moved_on():
                    continue
                try:
                    if self._begun(request) and self.picture and not self.picture.coarse:
                        late.cancel()  # the plots are up to date during a search
                        await self._search(self.picture, request)
                    picture = await compute(self._job)
                except CancelledError:
                    self._given_up = self._given_up or self._asked.first is None
                    continue
                except Exception as problem:
                    self._failed(problem)
                    if self._asked.request is self._wanted:
                        break
                    continue  # the settings have changed since and may be valid
                if self._gone:
                    return
                self._given_up = self._given_up and picture.coarse
                late.cancel()
                self._show(picture)
                late = asyncio.get_running_loop().call_later(_LATE, self._busy, True)
        finally:
            late.cancel()
            self._running = False
            if not self._gone:
                self._busy(False)
        await self._settle()

    def _next(self) -> Request | None:
        """The request to compute next, if any."""
        if self._wanted is None:
            try:
                self.state.request()
            except InputError as problem:
                complain(str(problem))
            return None
        shown = self.picture is not None and self.picture.whole and self.picture.request == self._wanted
        return None if shown else self._wanted

    async def _search(self, picture: Picture, request: Request) -> None:
        """Search for the picture's critical points, until another picture is wanted."""
        with contextlib.suppress(CancelledError):
            await search(picture, lambda: self._gone or self._wanted is not request)

    async def _moved_on(self) -> bool:
        """Wait for the next change of a held slider; whether one came in time."""
        self._news.clear()
        try:
            await asyncio.wait_for(self._news.wait(), _STILL)
        except TimeoutError:
            return False
        return True

    def _show(self, picture: Picture) -> None:
        """Draw a picture, in one message to the browser."""
        self.picture = picture
        self._warn(picture)
        with pn.io.hold():
            self._plots.show(picture)
            if not picture.coarse:
                self._table.show(picture)
                self._status.show(picture)
            self._inspector.show(picture)
            self._profile.show(picture)
            self._errors.show(picture)
            self._trail.show(picture)

    def _warn(self, picture: Picture) -> None:
        """Show the library's warnings about the runs, each once while it lasts."""
        lines = list(dict.fromkeys(line for run in picture.runs for line in run.warnings))
        for line in lines:
            if line not in self._warned:
                notice(line)
        self._warned = lines

    @staticmethod
    def _failed(problem: Exception) -> None:
        if isinstance(problem, InputError):
            complain(str(problem))
            return
        _LOG.error("the picture could not be computed", exc_info=problem)
        complain("The picture could not be computed; the last good one is shown. See the server's log.")

    def _busy(self, busy: bool) -> None:
        with pn.io.hold():  # which also sees to the document's lock
            self._plots.busy(busy)

    async def _settle(self) -> None:
        """Write the settings into the URL once they have not changed for a moment."""
        news = self._news
        news.clear()
        await asyncio.sleep(_PAUSE)
        if not (news.is_set() or self._running or self._gone):
            write(self.state)

    def _begun(self, request: Request) -> bool:
        """Whether a picture of a request is shown, even a coarse one."""
        return self.picture is not None and self.picture.request == request

    def _job(self) -> Job:
        """What to compute now; called by the worker thread when it is free.

        Raises:
            CancelledError: If nothing is wanted.
        """
        request = self._wanted
        if request is None or self._gone:
            raise CancelledError
        if (self.state.held or self._given_up) and not self._begun(request):
            self._asked = Job(request, FIRST, lambda: self._gone or not (self.state.held or self._given_up))
        else:
            self._asked = Job(request, None, lambda: self._gone or self._wanted is not request)
        return self._asked

    def _changed(self, *_events: Any) -> None:
        wanted = self._described()
        if wanted is None or wanted != self._wanted:  # the same picture stays the same object
            self._wanted = wanted
        self._leave_preset()
        self._news.set()
        pn.state.execute(self.refresh, schedule=True)

    @property
    def busy_sign(self) -> pn.viewable.Viewable:
        """Shown while something is being computed."""
        return self._status.sign

    def sidebar(self) -> list[pn.viewable.Viewable]:
        """The controls on the left."""
        scene = SceneCard(self.state)
        count = len(self.state.panels)
        first, *others = _headings(count)
        rules = [part for i, text in enumerate(others, 1) for part in (_heading(text), RuleCard(self.state, i))]
        reference = [_heading(first), RuleCard(self.state, 0)]
        return [
            self.menu,
            *(rules or reference),
            interval_controls(self.state),
            _heading("Scene"),
            scene.scene(),
            PlaneCard(self.state),
            _heading("Sampling"),
            scene.run(),
            *(reference if rules else []),
        ]

    def __panel__(self) -> pn.viewable.Viewable:
        return pn.Column(
            LayerBar(self.state),
            self._plots,
            pn.Row(self._plots.scrubber(), self.look, sizing_mode="stretch_width", margin=0),
            self._status,
            self._inspector,
            self._profile,
            self._errors,
            self._trail,
            self._responses,
            self._table,
            sizing_mode="stretch_width",
            margin=0,
        )


def _send_at_once() -> None:
    """Disable Nagle's algorithm on the websocket, which delays parts of a message by up to 40 ms."""
    context = pn.state.curdoc and pn.state.curdoc.session_context
    session = context and context.session
    for connection in session._subscribed_connections if session else ():
        connection._socket.set_nodelay(True)


def _headings(panels: int) -> list[str]:
    """What the rules' cards are called, from the first panel on."""
    if panels == 2:
        return ["Reference, on the left", "Rule, on the right"]
    return ["Reference" if panels > 1 else "Rule", *(f"Rule {i}" for i in range(2, panels + 1))]


def _heading(text: str) -> pn.viewable.Viewable:
    return pmui.Typography(text, variant="overline", margin=(4, 8, 0, 8), styles={"opacity": "0.75"})
