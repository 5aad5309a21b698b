"""A scene as one HTML file that works without a server, opened from a disk too; nothing in it asks for anything."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from html import escape
from pathlib import Path
from urllib.parse import parse_qsl

from toyguide import __version__
from toyguide.errors import InputError, unknown
from toyguide_apps.explorer_page.compute import picture
from toyguide_apps.explorer_page.layers.critical import find_critical
from toyguide_apps.explorer_page.panels import Request
from toyguide_apps.explorer_page.permalink import read
from toyguide_apps.explorer_page.presets import presets
from toyguide_apps.explorer_page.recording import Recording, Slider
from toyguide_apps.explorer_page.state import ExplorerState
from toyguide_apps.explorer_page.views.parts import Look
from toyguide_apps.explorer_page.views.stage import script

__all__ = ["html", "linked_scene", "preset_scene", "recorded"]

Watch = Callable[[Iterable[Request], int], Iterable[Request]]

_SOURCES = Path(__file__).with_name("stage")
# The policy refuses every request, whatever the page's script may do.
_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; script-src 'unsafe-inline';\
 style-src 'unsafe-inline'; img-src data:">
<meta name="generator" content="toyguide {version}">
<link rel="icon" href="data:,">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main id="stage"></main>
<footer>
<details><summary>The code of these runs</summary><div id="code"></div></details>
{home}<span>made with toyguide {version}</span>
<button type="button" id="theme"></button>
</footer>
<script type="text/plain" id="recorded">{packed}</script>
<script type="module">
{script}
const recorded = await unpack(document.getElementById("recorded").text)
const code = (picture) => writeCodes(document.getElementById("code"), recorded.said.codes[picture])
window.toyguide = new Player(document.getElementById("stage"), recorded, code)
themeSwitch(document.getElementById("theme"), toyguide.stage)
</script>
</body>
</html>
"""


def preset_scene(name: str) -> tuple[ExplorerState, Look]:
    """A preset's scene, and what is said about it.

    Raises:
        InputError: If there is no such preset.
    """
    if name not in presets():
        raise unknown("preset", name, presets())
    state = ExplorerState()
    state.apply(name)
    return state, Look.of(presets()[name])


def linked_scene(link: str) -> tuple[ExplorerState, Look]:
    """The scene of an explorer's address, or of what stands behind its question mark; nothing is said about it.

    Raises:
        InputError: If anything in it is not valid.
    """
    state = ExplorerState()
    query = dict(parse_qsl(link.partition("?")[2] if "?" in link else link, keep_blank_values=True))
    if problems := read(state, query):
        raise InputError(problems[0])
    return state, Look()


def recorded(
    state: ExplorerState, sliders: Sequence[Slider], look: Look, watch: Watch = lambda steps, _: steps
) -> Recording:
    """Compute and record a scene.

    Args:
        state: The scene.
        sliders: At most two.
        look: What is said about it.
        watch: Given the pictures' requests and their number, returns the requests; for a progress bar.

    Raises:
        InputError: If the sliders are too many, or the scene's settings do not fit together.
    """
    recording = Recording(state, sliders, look)
    for request in watch(recording.requests(), len(recording)):
        made = picture(request)
        for spot, reference in made.missing:
            find_critical(spot, reference, lambda: False)
        recording.add(picture(request) if made.missing else made)
    return recording


def html(recording: Recording, home: str = "") -> str:
    """The text of the file, once everything has been recorded.

    Args:
        recording: The scene.
        home: The address of the page that lists it, if there is one.
    """
    title, packed = recording.packed()
    code = "\n".join([script(), (_SOURCES / "player.js").read_text(encoding="utf-8")])
    assert "</script" not in code  # which would end it
    style = (_SOURCES / "player.css").read_text(encoding="utf-8")
    back = f'<a href="{escape(home)}">All scenes</a>' if home else ""
    return _PAGE.format(title=escape(title), version=__version__, style=style, packed=packed, script=code, home=back)
