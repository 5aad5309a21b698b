"""A served explorer and a page that fails on any error and on any request that leaves the machine."""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
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


class Explorer:
    """The page, and what its plots hold."""

    def __init__(self, page):
        self.page = page

    def open(self, address, query=""):
        self.page.goto(f"{address}{query}", timeout=PATIENCE)
        self.wait(
            "() => Bokeh.documents.length && Bokeh.documents[0].get_model_by_name('panel-2-frames').data.x.length"
        )
        # A picture that is at hand comes with the page, before anything of it can be seen or touched.
        self.page.locator(".bk-Canvas").last.wait_for(timeout=PATIENCE)
        self.page.locator("input[type=range]").last.wait_for(timeout=PATIENCE)
        return self

    def wait(self, script, arg=None):
        """Wait until a script is true; one that fails is not yet."""
        safe = f"(arg) => {{ try {{ return ({script})(arg) }} catch (e) {{ return false }} }}"
        self.page.wait_for_function(safe, arg=arg, timeout=PATIENCE)

    def column(self, source, name="x"):
        """A column of a plot's data."""
        return self.page.evaluate(
            "([s, c]) => Array.from(Bokeh.documents[0].get_model_by_name(s).data[c])", [source, name]
        )

    def size(self, source):
        first = "x0" if source in ("score", "saddles") or source.endswith("guidance") else "x"
        return len(self.column(source, first))

    def changed(self, source, before):
        """Wait until a source's column x differs from before."""
        self.wait(
            """([s, before]) => {
                const now = Array.from(Bokeh.documents[0].get_model_by_name(s).data.x)
                const same = (v, i) => v === before[i] || (isNaN(v) && before[i] === null)
                return now.length != before.length || !now.every(same)
            }""",
            [source, before],
        )

    def title(self, panel):
        return self.page.evaluate(
            "(name) => Bokeh.documents[0].get_model_by_name(name).title.text", f"panel-{panel}-figure"
        )

    def idle(self):
        """Wait until nothing is being computed."""
        self.page.wait_for_timeout(400)  # the sign comes 200 ms after a change
        self.wait("() => getComputedStyle(document.documentElement).getPropertyValue('--toyguide-busy') != '1'")

    def click(self, panel, u, v):
        """Click into a plot at coordinates of its plane, until a point is marked: a slow click is none to Bokeh."""
        at = self.page.evaluate(
            """([name, u, v]) => {
                const view = Bokeh.index.find_one(Bokeh.documents[0].get_model_by_name(name))
                const box = view.el.getBoundingClientRect()
                return [box.x + view.frame.x_scale.compute(u), box.y + view.frame.y_scale.compute(v)]
            }""",
            [f"panel-{panel}-figure", u, v],
        )
        marked = "() => Bokeh.documents[0].get_model_by_name('point').data.x.length"
        for _ in range(10):
            self.page.mouse.click(*at)
            self.page.wait_for_timeout(2_000)
            if self.page.evaluate(marked):
                return
        raise AssertionError("no click was taken")

    def press(self, name):
        """Click a button and take the mouse away: the tooltip of one button lies over the next."""
        self.page.get_by_role("button", name=name).click()
        self.page.mouse.move(0, 0)
        self.page.get_by_role("tooltip").wait_for(state="hidden")

    def table(self):
        return self.page.locator("table").last.inner_text()

    def choose(self, label, option):
        """Pick an option of a menu."""
        self.page.get_by_label(label, exact=True).first.click()
        self.page.get_by_text(option, exact=True).last.click()


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
