"""A static site of presets and studies, for any host: an index, a page for each preset and a page for each study."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from html import escape
from pathlib import Path

from matplotlib.figure import Figure

from toyguide import __version__
from toyguide.devices import resolve_device
from toyguide.errors import InputError
from toyguide.geometry.planes import Window
from toyguide.plots import save
from toyguide.plots.stage import LAYERS, draw
from toyguide.studies import Study, studies
from toyguide.studies.report import describe
from toyguide_apps.explorer_page.export import html, preset_scene, recorded
from toyguide_apps.explorer_page.judged import judged
from toyguide_apps.explorer_page.planes import plane
from toyguide_apps.explorer_page.presets import Preset, presets
from toyguide_apps.explorer_page.recording import usual_slider
from toyguide_apps.explorer_page.runs import finished
from toyguide_apps.explorer_page.state import ExplorerState
from toyguide_apps.studies_page import html as parts
from toyguide_apps.studies_page.results import Found, found

__all__ = ["write_gallery"]

Watch = Callable[[Sequence[str]], Iterable[str]]

_STYLE = """
    :root { --page: #fff; --text: #1c2430; --faint: #525c69; --rule: #c3c9d1; --link: #1f5fae; color-scheme: light; }
    @media (prefers-color-scheme: dark) { :root { --page: #14181e; --text: #e8edf4; --faint: #aab4c1; --rule: #47515e;
        --link: #7db4ff; color-scheme: dark; } }
    body { margin: 0 auto; max-width: 1180px; padding: 20px 20px 28px; background: var(--page); color: var(--text);
        font-family: Roboto, 'Helvetica Neue', Arial, sans-serif; }
    h1 { font-size: 26px; margin: 0 0 6px; } h2 { font-size: 19px; margin: 28px 0 10px; }
    a { color: var(--link); } :focus-visible { outline: 2px solid var(--link); outline-offset: 2px; }
    .cards { list-style: none; margin: 0; padding: 0; display: grid; gap: 24px;
        grid-template-columns: repeat(auto-fill, minmax(min(330px, 100%), 1fr)); }
    .cards a { font-weight: 600; font-size: 16px; text-decoration: none; }
    .cards a:hover { text-decoration: underline; }
    .cards img { display: block; width: 100%; height: 190px; object-fit: contain; background: #fff; margin-bottom: 6px;
        border: 1px solid var(--rule); border-radius: 6px; box-sizing: border-box; }
    .cards p { margin: 2px 0 4px; }
    .studies { list-style: none; padding: 0; display: grid; gap: 14px; margin: 0; }
    .studies p { margin: 2px 0; }
    figure { margin: 18px 0; }
    @media (max-width: 700px) { .entry { grid-template-columns: minmax(0, 1fr); } }
    footer { border-top: 1px solid var(--rule); margin-top: 32px; padding-top: 8px; font-size: 13px;
        color: var(--faint); }
"""
_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="generator" content="toyguide {version}">
<link rel="icon" href="data:,">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
{body}
<footer>made with toyguide {version}</footer>
</body>
</html>
"""
_WORDS = "What diffusion guidance rules do on distributions whose score is known exactly."
_INCHES = 2.4  # the side of a thumbnail's panel


def write_gallery(folder: str | Path, chosen: Sequence[str], watch: Watch = lambda keys: keys) -> None:
    """Write the site, whole or not at all.

    Args:
        folder: Where; a new folder, or an empty one.
        chosen: The presets' keys.
        watch: Given the keys, returns them; for a progress bar.

    Raises:
        InputError: If the folder is not empty or cannot be written, or there is no such preset.
    """
    target = _checked(Path(folder))
    for key in chosen:
        preset_scene(key)
    parent = target.absolute().parent
    temporary = parent / f".{target.name}.part"
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        for name in ("scenes", "studies"):
            (temporary / name).mkdir(parents=True)
        results = {s: r for s in studies().values() if (r := _result(s)) is not None}
        for study, result in results.items():
            shown = [presets()[key] for key in chosen if presets()[key].study == study.name]
            _write(temporary / "studies" / f"{study.name}.html", _study_page(study, result, shown))
        for key in watch(chosen):
            _write_scene(temporary / "scenes", key)
        _write(temporary / "index.html", _index([presets()[key] for key in chosen], results))
        if target.exists():
            target.rmdir()  # it is empty
        temporary.rename(target)
    except OSError as problem:
        raise InputError(f"output {str(folder)!r}: cannot be written ({problem.strerror})") from problem
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _checked(folder: Path) -> Path:
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise InputError(f"output {str(folder)!r}: expected a new folder, or an empty one")
    if not folder.absolute().parent.is_dir():
        raise InputError(f"output {str(folder)!r}: the folder {str(folder.parent)!r} does not exist")
    return folder


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _result(study: Study) -> Found | None:
    """The result that came with toyguide: the same site wherever it is made."""
    return next((r for r in found(study)[0] if not r.own), None)


def _write_scene(folder: Path, key: str) -> None:
    """A preset's page and thumbnail."""
    state, look = preset_scene(key)
    if verdict := judged(key):
        look = replace(look, verdict={"text": verdict, "href": f"../studies/{presets()[key].study}.html"})
    _write(folder / f"{key}.html", html(recorded(state, usual_slider(state), look), home="../index.html"))
    save(_thumbnail(state), folder / f"{key}.png", dpi=110)


def _thumbnail(state: ExplorerState) -> Figure:
    """The panels side by side, without words."""
    device = resolve_device("auto").type
    left, bottom, right, top = state.view_at(state.level())
    runs = state.request().runs
    figure = Figure((_INCHES * len(runs), _INCHES))
    for i, run in enumerate(runs):
        axes = figure.add_axes((i / len(runs) + 0.005, 0.01, 1 / len(runs) - 0.01, 0.98))
        result = finished(run, device, lambda: False)[0]
        layers = [layer for layer in (state.bands, *state.layers) if layer in LAYERS]
        step = None if state.step >= state.steps else min(state.step, run.steps)
        window = Window((left, bottom), (right, top))
        draw(axes, result, layers, step=step, plane=plane(state.dataset, state.plane), window=window)
        axes.set_axis_off()
    return figure


def _page(title: str, body: str) -> str:
    style = parts.STYLE.replace(":host", "body") + _STYLE
    return _PAGE.format(title=escape(title), style=style, body=body, version=__version__)


def _index(shown: Sequence[Preset], results: dict[Study, Found]) -> str:
    body = [f"<h1>toyguide</h1><p>{_WORDS}</p>"]
    for group in dict.fromkeys(preset.group for preset in shown):
        cards = "".join(_card(preset) for preset in shown if preset.group == group)
        body.append(f"<h2>{escape(group)}</h2><ul class='cards'>{cards}</ul>")
    entries = "".join(_entry(study, result) for study, result in results.items())
    body.append(f"<h2>Studies</h2><p>Claims of papers, put to the test.</p><ul class='studies'>{entries}</ul>")
    return _page("toyguide", "\n".join(body))


def _card(preset: Preset) -> str:
    address = f"scenes/{preset.key}"
    return (
        f"<li><img src='{address}.png' alt='' loading='lazy'><a href='{address}.html'>{escape(preset.title)}</a>"
        f"<p>{escape(preset.look)}</p></li>"
    )


def _entry(study: Study, result: Found) -> str:
    link = f"<a href='studies/{study.name}.html'><b>{escape(study.title)}</b></a>"
    return f"<li>{link}{parts.summary_line(describe(study), result)}</li>"


def _study_page(study: Study, result: Found, shown: Sequence[Preset]) -> str:
    described = result.summary
    links = " · ".join(f"<a href='../scenes/{p.key}.html'>{escape(p.title)}</a>" for p in shown)
    body = [
        "<p><a href='../index.html'>All scenes and studies</a></p>",
        f"<h1>{escape(described['title'])}</h1>",
        parts.heading(described, result, study.finding),
        f"<p>See it: {links}</p>" if links else "",
        "<h2>What decides</h2>",
        parts.criteria(described, result),
        *(parts.figure(result, sheet) for sheet in described["sheets"]),
        parts.numbers(result),
        f"<p>Run it again: <code>{escape(described['command'])}</code></p>",
    ]
    return _page(f"{described['title']} - toyguide", "\n".join(body))
