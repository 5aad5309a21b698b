"""One visitor's explorer: settings, views, and the loop that keeps the picture up to date."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import replace
from functools import partial
from typing import Any
from urllib.parse import parse_qsl

import panel as pn
import panel_material_ui as pmui
import param

from toyguide.errors import InputError
from toyguide_apps.explorer_page.compute import FIRST, CancelledError, Job, Picture, ahead, at_hand, compute, search
from toyguide_apps.explorer_page.controls import PanelCard, PlaneCard, SceneCard, preset_menu
from toyguide_apps.explorer_page.own_rules import OWN
from toyguide_apps.explorer_page.panels import Request
from toyguide_apps.explorer_page.permalink import read, search_of
from toyguide_apps.explorer_page.presets import OPENING, presets
from toyguide_apps.explorer_page.state import ExplorerState
from toyguide_apps.explorer_page.takeaway import TakeAway
from toyguide_apps.explorer_page.views.errors import ErrorsPanel
from toyguide_apps.explorer_page.views.inspector import InspectorPanel
from toyguide_apps.explorer_page.views.parts import Look
from toyguide_apps.explorer_page.views.profile import ProfilePanel
from toyguide_apps.explorer_page.views.responses import ResponsesPanel
from toyguide_apps.explorer_page.views.stage import StageView
from toyguide_apps.explorer_page.views.table import MetricsTable
from toyguide_apps.explorer_page.views.trail import TrailPanel
from toyguide_apps.shared.notices import complain, complain_of_link, notice, told

__all__ = ["Explorer"]

_LOG = logging.getLogger(__name__)
_STILL = 0.2  # seconds without a move after which a held slider gets its whole picture
_LATE = 0.2  # seconds of computing after which the page shows that it is busy; most pictures take less
_AHEAD = 2  # steps each way whose layers are sent before they are asked for
_LEVELLED = frozenset({"boundary", "exact-lines", "main-lines", "guide-lines", "score", "guidance", "saddles"})
_LOOK = 1.0  # seconds between two looks at whether a rule's file has changed
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
        self._written = ""
        self._plays = False
        self._reading = False
        self._sent: set[tuple[Request | None, bool, int]] = set()  # layers that were sent: of what, following, step
        self.stage = StageView(self.state, self._played, self._travelled)
        self._table = MetricsTable(self.state)
        self._inspector = InspectorPanel(self.state)
        self._profile = ProfilePanel(self.state)
        self._errors = ErrorsPanel(self.state)
        self._trail = TrailPanel(self.state)
        self._responses = ResponsesPanel(self.state)
        self.take_away = TakeAway(self.state, self._look)
        self.state.param.watch(self._changed, [k for k in self.state.param if k != "name"])

    def enter(self, query: dict[str, str]) -> list[str]:
        """Start from a URL's settings, with their picture if it is cached.

        Returns:
            The invalid settings, which are ignored, one line each.
        """
        self._running = True  # draws nothing until the page is loaded
        self._responses.wait()
        problems = self._read(query)
        made = self._wanted and at_hand(self._wanted)
        if made:
            self._show(made)
        return problems

    def open(self, problems: list[str]) -> None:
        """Called when the page is loaded: report invalid settings, and draw what is missing."""
        if problems:
            complain_of_link(problems)
        self._running = False
        self._responses.open()
        _send_at_once()
        pn.state.execute(self.refresh, schedule=True)
        if OWN:
            pn.state.execute(self.follow_files, schedule=True)

    def close(self) -> None:
        """Called when the visitor has left: stop computing for this session."""
        self._gone = True
        self._responses.close()
        self.take_away.close()

    @told
    def _choose(self, event: param.parameterized.Event) -> None:
        """Apply the preset chosen in the menu."""
        if not event.new or self._reading:
            return
        self._preset = None
        self.state.apply(event.new)
        self._preset = self._scene()
        if self.picture is not None and self.picture.request == self._wanted:
            self._show(self.picture)  # the same picture has another headline now

    def _described(self) -> Request | None:
        """The picture that the settings describe, or None if they do not fit together."""
        try:
            return self.state.request()
        except InputError:
            return None

    def _scene(self) -> Request | None:
        """The wanted request without where the visitor looks: time line, window, point, curves, followed sample."""
        found = _elsewhere(self._wanted)
        return found and replace(found, still_window=(0.0, 0.0, 1.0, 1.0))

    def _leave_preset(self) -> None:
        """Clear the preset menu and its sentence once a setting differs from the preset."""
        if self._preset is not None and self._scene() != self._preset:
            self._preset = None
            self.menu.value = ""

    def _look(self) -> Look:
        """What is said above the picture."""
        if self._preset is None or not self.menu.value:
            return Look()
        return Look.of(presets()[self.menu.value])

    def _travelled(self, search: str) -> None:
        """Apply an address that the visitor went back or on to."""
        with param.parameterized.batch_call_watchers(self.state):
            self.state.reset()
            problems = self._read(dict(parse_qsl(search.removeprefix("?"))))
        if problems:
            complain_of_link(problems)

    def _read(self, query: dict[str, str]) -> list[str]:
        """Take over an address' settings; one without any shows the opening preset. Returns what was wrong."""
        if not set(query) - {"theme"}:
            query = {**query, "preset": OPENING}
        problems = read(self.state, query)
        self._wanted = self._described()
        self._written = search_of(self.state)
        key = query.get("preset", "")
        chosen = key if key in presets() else ""
        self._preset = self._scene() if chosen else None
        self._reading = True
        self.menu.value = chosen
        self._reading = False
        return problems

    def _played(self, playing: bool) -> None:
        self._plays = playing

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
        await self._look_ahead()
        await self._settle()

    async def _look_ahead(self) -> None:
        """Send the layers of the next noise levels, so that the time line finds them: some, or all while it plays."""
        while not (self._gone or self._running) and (found := self._next_level()) is not None:
            step, request = found
            try:
                picture = await ahead(partial(Job, request, None, partial(self._left, request)))
            except CancelledError:
                if self._left(request):
                    return
                await asyncio.sleep(_PAUSE)  # somebody's picture came first
                continue
            except Exception:  # which is told where the picture itself is asked for
                return
            if self._gone or _elsewhere(request) != _elsewhere(self._wanted):
                return
            self.stage.ahead(picture, step)
            self._sent.add(self._level(request, step))

    def _left(self, request: Request) -> bool:
        """Whether the layers of another noise level are no longer wanted, or must wait for a picture."""
        return self._gone or self._running or _elsewhere(request) != _elsewhere(self._wanted)

    def _next_level(self) -> tuple[int, Request] | None:
        """The nearest step whose layers are still to be sent, and its picture; steps to come before those gone by."""
        if self._wanted is None or (self._wanted.bands == "none" and not self._wanted.layers & _LEVELLED):
            return None
        here, last = self.state.step, self.state.steps
        reach = last if self._plays else _AHEAD
        order = sorted(range(max(0, here - reach), min(last, here + reach + 1)), key=lambda k: (abs(k - here), -k))
        if self._plays:
            order = [k for k in order if k >= here] + [k for k in order if k < here]
        for step in order:
            request = self.state.request_at(step)
            if self._level(request, step) not in self._sent:
                return step, request
        return None

    def _level(self, request: Request, step: int) -> tuple[Request | None, bool, int]:
        """By what the layers of a step are known once they are sent; the last step has those of the one before."""
        return _elsewhere(request), self.state.following, min(step, self.state.steps - 1)

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
        here = self._level(picture.request, self.state.step)
        self._sent = {here, *(known for known in self._sent if known[:2] == here[:2])}
        with pn.io.hold():
            self.stage.show(picture, self._look())
            if not picture.coarse:
                self._table.show(picture)
            self._inspector.show(picture)
            self._profile.show(picture)
            self._errors.show(picture)
            self._trail.show(picture)

    def _warn(self, picture: Picture) -> None:
        """Show the library's warnings about the runs, and which have another sampler, each once while it lasts."""
        switched = filter(None, map(self.state.switched_sampler, range(len(self.state.panels))))
        lines = list(dict.fromkeys([line for run in picture.runs for line in run.warnings] + list(switched)))
        for line in lines:
            if line not in self._warned:
                notice(line)
        self._warned = lines

    async def follow_files(self) -> None:
        """Take over the rules of one's own files whenever they have changed, and say what is wrong with them."""
        seen, told_of = OWN.edition, list[str]()
        while not self._gone:
            for line in OWN.problems:
                if line not in told_of:
                    complain(line)
            told_of = OWN.problems
            if OWN.edition != seen:
                seen = OWN.edition
                with pn.io.hold():
                    self.state.renew_rules(OWN.successor)
            await asyncio.sleep(_LOOK)

    @staticmethod
    def _failed(problem: Exception) -> None:
        if line := str(problem) if isinstance(problem, InputError) else OWN.blame(problem):
            complain(line)
            return
        _LOG.error("the picture could not be computed", exc_info=problem)
        complain("The picture could not be computed; the last good one is shown. See the server's log.")

    def _busy(self, busy: bool) -> None:
        with pn.io.hold():  # which also sees to the document's lock
            self.stage.busy(busy)

    async def _settle(self) -> None:
        """Write the settings into the URL once they have not changed for a moment."""
        news = self._news
        news.clear()
        await asyncio.sleep(_PAUSE)
        if not (news.is_set() or self._running or self._gone):
            search = search_of(self.state)
            if search != self._written:
                self._written = search
                self.stage.write_address(search)

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
        self.stage.follow(self.picture)
        self._news.set()
        pn.state.execute(self.refresh, schedule=True)

    def sidebar(self) -> list[pn.viewable.Viewable]:
        """The controls on the left."""
        scene = SceneCard(self.state)
        return [
            self.menu,
            PanelCard(self.state),
            _heading("All panels"),
            scene.scene(),
            PlaneCard(self.state),
            scene.run(),
        ]

    def __panel__(self) -> pn.viewable.Viewable:
        return pn.Column(
            self.stage,
            self._table,
            self._inspector,
            self._trail,
            self._profile,
            self._errors,
            self._responses,
            sizing_mode="stretch_width",
            margin=0,
        )


def _send_at_once() -> None:
    """Disable Nagle's algorithm on the websocket, which delays parts of a message by up to 40 ms."""
    context = pn.state.curdoc and pn.state.curdoc.session_context
    session = context and context.session
    for connection in session._subscribed_connections if session else ():
        connection._socket.set_nodelay(True)


def _elsewhere(request: Request | None) -> Request | None:
    """A request without its noise level: equal for the pictures between which only the time line moves."""
    nowhere: dict[str, Any] = dict(sigma=1.0, at_end=False, window=(0.0, 0.0, 1.0, 1.0), point=None, ends=None)
    return request and replace(request, **nowhere, errors=False, sample=None)


def _heading(text: str) -> pn.viewable.Viewable:
    return pmui.Typography(text, variant="overline", margin=(4, 8, 0, 8), styles={"opacity": "0.75"})
