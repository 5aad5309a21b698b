"""``toyguide gallery``: a static site of the explorer's presets and the studies, for any host."""

from __future__ import annotations

import argparse
import importlib.util
from functools import partial

from toyguide.errors import InputError

NAME = "gallery"
HELP = "write a static site of all presets and studies"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--output", required=True, metavar="FOLDER", help="the folder to write; new, or empty")
    parser.add_argument("--preset", action="append", metavar="NAME", help="only these presets (default: all)")


def run(args: argparse.Namespace) -> None:
    if importlib.util.find_spec("panel") is None or importlib.util.find_spec("toyguide_apps") is None:
        raise InputError("the explorer needs Panel, which is not installed: expected pip install 'toyguide[app]'")
    from tqdm import tqdm

    import toyguide.plots  # noqa: F401, raises at once if matplotlib is missing
    from toyguide_apps.explorer_page.presets import presets
    from toyguide_apps.gallery import write_gallery

    chosen = args.preset or list(presets())
    write_gallery(args.output, chosen, partial(tqdm, unit="preset", disable=None, leave=False))
    print(f"{args.output}/index.html")
