"""``toyguide export``: one scene of the explorer as one HTML file that works without a server."""

from __future__ import annotations

import argparse
import importlib.util
from functools import partial
from pathlib import Path

from toyguide.errors import InputError
from toyguide.files import check_writable, writing

NAME = "export"
HELP = "write a scene of the explorer as one HTML file that works without a server"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("output", metavar="SCENE.html", help="the file to write")
    scene = parser.add_mutually_exclusive_group(required=True)
    scene.add_argument("--preset", metavar="NAME", help="the scene of this preset, like figure-1e")
    scene.add_argument("--link", metavar="QUERY", help="the scene of an explorer's link, like '?rule=cfg&w=4'")
    parser.add_argument(
        "--slider",
        action="append",
        default=[],
        metavar="NAME=FROM:TO:COUNT",
        help="a slider for a parameter of a panel's rule, like w=1:4:11 or B.w=1:4:11; at most two",
    )


def run(args: argparse.Namespace) -> None:
    if not args.output.endswith(".html"):
        raise InputError(f"output {args.output!r}: expected a name that ends in .html")
    check_writable(args.output)
    if importlib.util.find_spec("panel") is None or importlib.util.find_spec("toyguide_apps") is None:
        raise InputError("the explorer needs Panel, which is not installed: expected pip install 'toyguide[app]'")
    from tqdm import tqdm

    from toyguide_apps.explorer_page.export import html, linked_scene, preset_scene, recorded
    from toyguide_apps.explorer_page.recording import parse_slider

    state, look = preset_scene(args.preset) if args.preset else linked_scene(args.link)
    bar = partial(tqdm, unit="picture", disable=None, leave=False)
    sliders = [parse_slider(text, state) for text in args.slider]
    text = html(recorded(state, sliders, look, lambda requests, total: bar(requests, total=total)))
    with writing(args.output) as path:
        Path(path).write_text(text, encoding="utf-8")
    print(f"{args.output}: {len(text) / 1e6:.1f} MB")
