"""Which lines of a server's log name our own modules."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def ours(log, root=ROOT):
    """Traceback lines in a log that name a module of toyguide's, wherever they lie."""
    return re.findall(rf'File "(?:{re.escape(str(root))}/(?:toyguide|apps)|[^"]*/toyguide_apps)/.*', log)
