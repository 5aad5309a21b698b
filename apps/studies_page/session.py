"""One visitor's page of studies: the list, the chosen study, and what is being run."""

from __future__ import annotations

import functools
from typing import Any
from urllib.parse import urlencode

import panel as pn
import panel_material_ui as pmui

from toyguide.errors import InputError
from toyguide.studies import Study, studies, study
from toyguide.studies.report import IMAGE_FORMATS, describe
from toyguide_apps.shared.notices import complain, told
from toyguide_apps.studies_page import html as views
from toyguide_apps.studies_page.results import Found, found, rough_seconds
from toyguide_apps.studies_page.run_bar import RunBar
from toyguide_apps.studies_page.runner import RUNNER, Runner
from toyguide_apps.studies_page.scenes import scenes

__all__ = ["Studies"]

_ALL = "All studies"
_RESULTS = {"bundled": "Came with toyguide", "full": "Full run, here", "quick": "Quick look, here"}
_FILES = {"runs.csv": "Runs (CSV)", "summary.json": "Summary (JSON)", "report.md": "Report (Markdown)"}
_BUTTON: dict[str, Any] = {"size": "small", "margin": (4, 4, 4, 10)}


class Studies(pn.viewable.Viewer):
    """The whole page, for a server or a notebook.

    Args:
        runner: Runs studies.
    """

    def __init__(self, runner: Runner = RUNNER) -> None:
        super().__init__()
        self._runner = runner
        self._chosen: Study | None = None
        self._key: str | None = None  # which of its results; None for the first
        self._ended = runner.ended
        self._busy = runner.running is not None
        self._bar = RunBar(runner)
        self._menu = pmui.MenuList(items=[], sizing_mode="stretch_width", margin=(4, 0))
        self._menu.param.watch(self._pick, "active")
        self._main = pn.Column(sizing_mode="stretch_width", margin=0)
        self._starts: list[pmui.Button] = []

    def enter(self, query: dict[str, str]) -> list[str]:
        """Start from a URL.

        Returns:
            What was wrong in it, one line each.
        """
        problems = []
        try:
            self._chosen = study(query["study"]) if query.get("study") else None
        except InputError as problem:
            problems.append(str(problem))
        self._list()
        return problems + self._draw()

    def choose(self, name: str | None, key: str | None = None) -> None:
        """Show a study, or the list; and of a study one of its results.

        Raises:
            InputError: If there is none of that name.
        """
        self._chosen, self._key = study(name) if name else None, key
        with pn.io.hold():
            self._list()
            for problem in self._draw():
                complain(problem)
        _write_address(name)

    def refresh(self) -> None:
        """Follow the runner: update its bar, and show the results of a run that has ended."""
        with pn.io.hold():
            self._bar.show()
            ended, busy = self._runner.ended, self._runner.running is not None
            if (ended, busy) == (self._ended, self._busy):
                return
            fresh = ended if ended is not self._ended else None
            if fresh and fresh.how == "done" and self._chosen and fresh.name == self._chosen.name:
                self._key = "quick" if fresh.quick else "full"
            self._ended, self._busy = ended, busy
            self._list()
            self._draw()

    @told
    def _pick(self, event: Any) -> None:
        index = event.new[0] if isinstance(event.new, tuple) else event.new
        if index is None:
            return
        name = None if index == 0 else list(studies())[index - 1]
        if name != (self._chosen.name if self._chosen else None):
            self.choose(name)

    def _list(self) -> None:
        """The menu, each study with its verdict."""
        items: list[dict[str, Any]] = [{"label": _ALL, "icon": None}]
        for s in studies().values():
            results, _ = found(s)
            word = results[0].summary["verdict"] if results else ""
            items.append({"label": s.title, "secondary": _signed(word), "icon": None})
        active = 0 if self._chosen is None else 1 + list(studies()).index(self._chosen.name)
        self._menu.param.update(items=items, active=(active,))

    def _draw(self) -> list[str]:
        """Fill the page; returns the problems with results, one line each."""
        if self._chosen is None:
            parts, problems = self._overview()
        else:
            parts, problems = self._details(self._chosen)
        self._main.objects = parts
        return problems

    def _overview(self) -> tuple[list[Any], list[str]]:
        parts: list[Any] = [
            _html(
                "<p>Each study puts one claim of one paper to the test. Its verdict follows from a rule that was "
                "written down before the runs: <b>supported</b> if the 95 % interval of each effect over the seeds "
                "lies wholly on the claimed side of its threshold, <b>not supported</b> if an effect lies on the other "
                "side by more than chance, counting all criteria of the study (p against of 0.025 or less), else "
                "<b>inconclusive</b>.</p>",
                margin=(10, 10, 0, 10),
            )
        ]
        problems = []
        for s in studies().values():
            results, wrong = found(s)
            problems += wrong
            title = pmui.Button(label=s.title, variant="text", color="default", margin=(8, 4, 0, 2), sx=_TITLE)
            title.on_click(lambda _, name=s.name: self._go(name))
            line = _html(views.summary_line(describe(s), results[0] if results else None))
            parts.append(pn.Column(title, line, sizing_mode="stretch_width", margin=0, styles=_RULED))
        return parts, problems

    @told
    def _go(self, name: str) -> None:
        self.choose(name)

    def _details(self, chosen: Study) -> tuple[list[Any], list[str]]:
        results, problems = found(chosen)
        shown = next((r for r in results if r.key == self._key), results[0] if results else None)
        described = shown.summary if shown else describe(chosen)
        parts: list[Any] = [
            pmui.Typography(described["title"], variant="h5", margin=(4, 10, 8, 10)),
            *self._results(results, shown),
            _html(views.heading(described, shown, chosen.finding)),
            _html(views.in_explorer(scenes(chosen))),
            self._runs(chosen),
            _html(views.criteria(described, shown)),
        ]
        if shown is None:
            return parts, problems
        seen = views.in_explorer(scenes(chosen))
        parts += [_html(views.figure(shown, s) + seen, margin=(16, 10, 0, 10)) for s in shown.summary["sheets"]]
        numbers = views.numbers(shown)
        if numbers:
            parts += [_title("Numbers"), _html(numbers)]
        command = f"<p>The same again: <code>{views.escape(shown.summary['command'])}</code></p>"
        return [*parts, _title("Files and command"), _html(command), _downloads(shown)], problems

    def _results(self, results: list[Found], shown: Found | None) -> list[Any]:
        """Buttons to choose between several results."""
        if len(results) < 2 or shown is None:
            return []
        options = {f"{_RESULTS[r.key]}: {_signed(r.summary['verdict'])}": r.key for r in results}
        buttons = pmui.RadioButtonGroup(options=options, value=shown.key, size="small", margin=(0, 10, 10, 10))
        buttons.param.watch(self._switch, "value")
        return [buttons]

    @told
    def _switch(self, event: Any) -> None:
        self._key = event.new
        with pn.io.hold():
            self._draw()

    def _runs(self, chosen: Study) -> pn.viewable.Viewable:
        """The buttons that start a run."""
        row = pn.Row(sizing_mode="stretch_width", margin=(0, 0, 8, 0))
        for quick, label in ((True, "Run a quick look"), (False, "Run in full")):
            button = pmui.Button(
                label=f"{label} ({_rough(chosen, quick)})",
                variant="contained" if quick else "outlined",
                color="primary" if quick else "default",
                disabled=self._busy,
                **_BUTTON,
            )
            button.on_click(lambda _, quick=quick: self._start(chosen.name, quick))
            row.append(button)
        if self._busy:
            row.append(_html("<span class='small'>One study is run at a time.</span>", margin=(8, 10)))
        return row

    @told
    def _start(self, name: str, quick: bool) -> None:
        self._runner.start(name, quick)

    def sidebar(self) -> list[pn.viewable.Viewable]:
        """The list of studies."""
        return [self._menu]

    def __panel__(self) -> pn.viewable.Viewable:
        return pn.Column(self._bar, self._main, sizing_mode="stretch_width", margin=0, styles={"max-width": "1180px"})


_TITLE = {"color": "text.primary", "fontSize": "1.05rem !important", "fontWeight": 600, "textAlign": "left"}
_RULED = {"border-bottom": "1px solid rgba(128,128,128,.25)", "padding-bottom": "4px"}


def _write_address(name: str | None) -> None:
    """Write the shown study, or the list, into the page's address."""
    location = pn.state.location
    if location is not None:
        kept = {k: v for k, v in location.query_params.items() if k != "study"}
        query = urlencode(kept | ({"study": name} if name else {}))
        location.search = f"?{query}" if query else ""


def _signed(word: str) -> str:
    """A verdict with its sign, as plain text."""
    return f"{views.MARKS.get(word, '?')} {word or 'not run yet'}"


def _html(text: str, margin: tuple[int, ...] = (0, 10)) -> pn.pane.HTML:
    return pn.pane.HTML(text, stylesheets=[views.STYLE], sizing_mode="stretch_width", margin=margin)


def _title(text: str) -> pn.viewable.Viewable:
    return pmui.Typography(text, variant="h6", margin=(18, 10, 4, 10))


def _rough(chosen: Study, quick: bool) -> str:
    try:
        seconds = rough_seconds(chosen, quick)
    except InputError:
        return "duration unknown"
    return f"about {views.duration(seconds)}" if seconds else "nothing left to run"


def _downloads(shown: Found) -> pn.viewable.Viewable:
    """A download button for each file that exists."""
    names = {**_FILES, **{f"{s['name']}{IMAGE_FORMATS[1]}": f"{s['name']} (SVG)" for s in shown.summary["sheets"]}}
    row = pn.FlexBox(margin=(0, 6, 30, 6))
    for name, label in names.items():
        path = shown.file(name)
        if path is not None:
            filename = f"{shown.summary['name']}-{name}"
            give = functools.partial(path.open, "rb")
            row.append(
                pmui.FileDownload(
                    callback=give, filename=filename, label=label, variant="outlined", color="default", **_BUTTON
                )
            )
    return row
