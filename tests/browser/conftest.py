"""A served explorer and a page that fails on any error and on any request that leaves the machine."""

import base64
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from tracebacks import ROOT, ours

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or "/usr/bin/chromium"
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
EXPLORER = ROOT / "apps" / "explorer.py"
PATIENCE = 90_000  # ms; for a slow machine, not a measurement


def pytest_collection_modifyitems(items):
    here = Path(__file__).parent
    for item in items:
        if here in Path(item.fspath).parents:
            item.add_marker(pytest.mark.browser)
            if not Path(CHROMIUM).exists():
                item.add_marker(pytest.mark.skip(reason="no chromium"))


@pytest.fixture(scope="session")
def browser_type_launch_args(browser_type_launch_args):
    return {**browser_type_launch_args, "executable_path": CHROMIUM, "args": FLAGS}


@pytest.fixture(scope="session")
def browser_context_args(browser_context_args):
    return {**browser_context_args, "viewport": {"width": 1440, "height": 900}}


def serve(tmp_path_factory, **environment):
    """Start ``panel serve`` on a free port; yields its address, and checks at the end that nothing failed in it."""
    log = tmp_path_factory.mktemp("server") / "log.txt"
    command = [sys.executable, "-m", "panel", "serve", str(EXPLORER), "--port", "0", "--address", "127.0.0.1"]
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env={**os.environ, **environment})
    try:
        address = None
        give_up = time.monotonic() + 120
        while address is None and time.monotonic() < give_up and process.poll() is None:
            address = re.search(r"http://127\.0\.0\.1:\d+/explorer", log.read_text())
            time.sleep(0.1)
        assert address, log.read_text()
        yield address[0]
    finally:
        process.terminate()
        process.wait(30)
    said = log.read_text()
    # Tornado complains when a visitor leaves while something is sent to him; no traceback may pass through our modules.
    assert not ours(said), said
    assert "BokehUserWarning" not in said, said


@pytest.fixture(scope="session")
def address(tmp_path_factory):
    yield from serve(tmp_path_factory)


def barriers(page):
    """What axe-core finds on a page that keeps someone from using it: its serious and critical violations."""
    found = Axe().run(page).response["violations"]
    return [
        f"{one['id']}: {node['html'][:160]}"
        for one in found
        if one["impact"] in ("serious", "critical")
        for node in one["nodes"]
    ]


class Explorer:
    """The page, and what its stage holds."""

    def __init__(self, page):
        self.page = page

    def open(self, address, query=""):
        self.page.goto(f"{address}{query}", timeout=PATIENCE)
        self.wait("() => toyguide.frames && toyguide.panels.length && toyguide.panels.every((panel) => panel.run)")
        # A picture that is at hand comes with the page, before anything of it can be seen or touched.
        self.page.locator("input[type=range]").first.wait_for(state="attached", timeout=PATIENCE)
        return self

    def wait(self, script, arg=None):
        """Wait until a script is true; one that fails is not yet."""
        safe = f"(arg) => {{ try {{ return ({script})(arg) }} catch (e) {{ return false }} }}"
        self.page.wait_for_function(safe, arg=arg, timeout=PATIENCE)

    def stage(self, expression):
        """The value of an expression of the stage, ``s``."""
        return self.page.evaluate(f"() => {{ const s = toyguide; return {expression} }}")

    def run(self, panel):
        """What a panel, counted from 1, has of its run: numbers and lists."""
        return self.stage(
            f"Object.fromEntries(Object.entries(s.panels[{panel - 1}].run).map("
            "([k, v]) => [k, ArrayBuffer.isView(v) ? Array.from(v) : v]))"
        )

    def ends(self, panel):
        """Where a panel's samples end: their first coordinates."""
        run = self.run(panel)
        return run["x"][-run["n"] :]

    def title(self, panel):
        return self.stage(f"s.boarded.panels[{panel - 1}].title")

    def titled(self, panel, start):
        """Wait until a panel shows a run whose title starts so."""
        self.wait(f"(start) => toyguide.boarded.panels[{panel - 1}].title.startsWith(start)", start)

    def changed(self, panel, ends):
        """Wait until a panel's samples end elsewhere, all of them."""
        self.wait(
            """([i, ends]) => {
                const { x, n } = toyguide.panels[i].run
                return n === ends.length && ends.some((value, k) => x[x.length - n + k] !== value)
            }""",
            [panel - 1, ends],
        )

    def rest(self):
        """Wait until the view has come to rest and is drawn as it stays."""
        self.wait("() => !toyguide.moving && !toyguide.playing && !toyguide.frame")

    def idle(self):
        """Wait until nothing is being computed, and what was is drawn."""
        self.page.wait_for_timeout(400)  # the sign comes 200 ms after a change
        self.wait("() => getComputedStyle(document.documentElement).getPropertyValue('--toyguide-busy') != '1'")
        self.rest()

    def at(self, panel, u, v):
        """Where coordinates of the plane are on the page, in pixels."""
        return self.page.evaluate(
            """([i, u, v]) => {
                const { canvas, frame } = toyguide.panels[i]
                const box = canvas.getBoundingClientRect()
                const edge = (box.width - frame.side) / 2
                return [box.x + edge + frame.x(u), box.y + edge + frame.y(v)]
            }""",
            [panel - 1, u, v],
        )

    def place(self, panel, sample):
        """Where a sample is on the page, in pixels."""
        u, v = self.stage(f"s.panels[{panel - 1}].place({sample}, s.panels[{panel - 1}].position())")
        return self.at(panel, u, v)

    def pixels(self, panel):
        """A panel as it is drawn: red, green and blue with shape ``(side, side, 3)``, uint8."""
        side, data = self.page.evaluate(
            """(i) => {
                const { canvas } = toyguide.panels[i]
                const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height)
                let text = ''
                for (let k = 0; k < data.length; k += 8192) text += String.fromCharCode(...data.subarray(k, k + 8192))
                return [canvas.width, btoa(text)]
            }""",
            panel - 1,
        )
        return np.frombuffer(base64.b64decode(data), np.uint8).reshape(side, side, 4)[..., :3].astype(int)

    def layer(self, name):
        """The switch of a layer."""
        return self.page.get_by_role("checkbox", name=name, exact=True)

    def press(self, name):
        self.page.get_by_role("button", name=name, exact=True).first.click()

    def table(self):
        """The metrics of all panels, folded out."""
        return self.page.locator("table", has_text="Evaluations").inner_text()

    def choose(self, label, option):
        """Pick an option of a menu."""
        self.page.get_by_label(label, exact=True).first.click()
        self.page.get_by_text(option, exact=True).last.click()

    def choose_rule(self, key):
        """Search for a rule by its name, and take it."""
        self.page.get_by_role("button", name=re.compile("^Rule ")).click()
        self.page.get_by_role("combobox", name="Search the rules").fill(key)
        self.page.keyboard.press("Enter")


@pytest.fixture
def strict_page(page):
    """A page on which any error in the console and any request to another machine fails the test."""
    errors, external = [], []
    page.on("pageerror", lambda e: errors.append(str(e)))
    page.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)

    def gate(route):
        if re.match(r"(https?|wss?)://127\.0\.0\.1[:/]|data:|blob:", route.request.url):
            return route.continue_()
        external.append(route.request.url)
        return route.abort()

    page.route("**/*", gate)
    yield page
    assert external == []
    assert errors == []


@pytest.fixture
def explorer(strict_page):
    return Explorer(strict_page)
