"""The page of studies as a visitor uses it, in a real browser, on the server of `toyguide app`."""

import base64
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import barriers
from tracebacks import ours

from toyguide.studies import studies, study
from toyguide.studies.report import describe
from toyguide_apps.studies_page.scenes import scenes

NAME = "cfg-is-not-tilting"
PATIENCE = 90_000  # ms; for a slow machine, not a measurement
PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server with one result of its own: its address, and its process."""
    folder = tmp_path_factory.mktemp("studies")
    described = describe(study(NAME))
    judged = {"value": 0.25, "low": 0.2, "high": 0.3, "p_against": 0.7, "verdict": "supported"}
    criteria = [{**c, **judged} for c in described["criteria"]]
    summary = {
        **described,
        "criteria": criteria,
        "verdict": "supported",
        "figures": {},
        "intervals": {},
        "sheets": [{"name": "variances", "caption": "What is to be seen."}],
        **{"quick": False, "seeds": 5, "first_seed": 100, "runs": 30, "command": "toyguide study"},
    }
    (folder / NAME).mkdir()
    (folder / NAME / "summary.json").write_text(json.dumps(summary))
    (folder / NAME / "runs.csv").write_text("seed,w\n0,1\n")
    (folder / NAME / "variances.png").write_bytes(PIXEL)
    log = folder / "log.txt"
    command = [sys.executable, "-m", "toyguide", "app", "--port", "0"]
    with log.open("w") as output:
        environment = {**os.environ, "TOYGUIDE_STUDIES": str(folder)}
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)
    try:
        address, give_up = None, time.monotonic() + PATIENCE / 1000
        while address is None and time.monotonic() < give_up and process.poll() is None:
            address = re.search(r"http://127\.0\.0\.1:\d+/studies", log.read_text())
            time.sleep(0.1)
        assert address, log.read_text()
        yield address[0], process
    finally:
        process.terminate()
        process.wait(30)
    assert not ours(log.read_text()), log.read_text()


def test_a_traceback_is_ours_only_where_it_passes_through_our_modules():
    root = "/home/someone/toyguide"
    closed = f'  File "{root}/.venv/lib/python3.11/site-packages/tornado/websocket.py", line 1, in write_message\n'
    assert ours(closed, root) == []
    for path in ("toyguide/samplers.py", "apps/serve.py", ".venv/lib/python3.11/site-packages/toyguide_apps/serve.py"):
        assert len(ours(f'{closed}  File "{root}/{path}", line 1, in step\n', root)) == 1


def see(page, words):
    """Wait until words can be seen."""
    page.get_by_text(words).first.wait_for(timeout=PATIENCE)


def press(page, name):
    """Press a button by keyboard."""
    button = page.get_by_role("button", name=name).last
    button.focus(timeout=PATIENCE)
    button.press("Enter")


def start(page):
    """Start a quick look, and wait until it says how far it is.

    The page is drawn anew whenever a run ends, and a key that hits the button of before is lost: then once more.
    """
    told = page.get_by_text(re.compile(r"training network \d of \d")).first
    give_up = time.monotonic() + PATIENCE / 1000
    while not told.is_visible():
        assert time.monotonic() < give_up, "the run does not begin"
        button = page.get_by_role("button", name=re.compile("Run a quick look")).last
        if button.is_enabled():  # it is not while a study is run
            press(page, re.compile("Run a quick look"))
        page.wait_for_timeout(1000)


def children(process):
    """The processes that a process has started and that still run."""
    found = Path(f"/proc/{process.pid}/task").glob("*/children")
    return [int(pid) for path in found for pid in path.read_text().split()]


def test_the_list_leads_to_a_study_and_its_figure_by_keyboard(strict_page, server):
    page, (address, _) = strict_page, server
    page.goto(address, timeout=PATIENCE)
    for s in studies().values():
        see(page, s.statement)
    assert page.get_by_text("supported", exact=True).count() >= 1
    press(page, study(NAME).title)
    see(page, study(NAME).setting)
    page.wait_for_url(f"{address}?study={NAME}", timeout=PATIENCE)  # written after the page has changed
    assert page.get_by_text(study(NAME).statement).first.bounding_box()["y"] < 300  # from its beginning
    box = page.get_by_label("Full size")
    small = page.locator("figure label").bounding_box()
    box.press("Space")
    assert page.locator("figure label").bounding_box() == {"x": 0, "y": 0, "width": 1440, "height": 900}
    box.press("Space")
    assert page.locator("figure label").bounding_box() == small
    with page.expect_download() as started:
        press(page, "Runs (CSV)")
    assert started.value.suggested_filename == f"{NAME}-runs.csv"
    assert Path(started.value.path()).read_text() == "seed,w\n0,1\n"
    page.get_by_role("button", name="All studies").click()
    see(page, list(studies().values())[-1].statement)
    page.wait_for_url(address, timeout=PATIENCE)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_it_fits_a_small_screen_and_leads_to_the_explorer_and_back(strict_page, server, theme):
    page, (address, _) = strict_page, server
    page.set_viewport_size({"width": 1024, "height": 700})
    page.goto(f"{address}?study={NAME}&theme={theme}", timeout=PATIENCE)
    see(page, study(NAME).setting)
    assert page.evaluate("document.documentElement.scrollWidth") <= 1024
    assert barriers(page) == []
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (max(map(int, re.findall(r"\d+", background)[:3])) < 64) == (theme == "dark")
    page.get_by_role("link", name="Explorer").click()
    page.wait_for_url(re.compile("/explorer"), timeout=PATIENCE)
    page.get_by_role("link", name="Studies").click(timeout=PATIENCE)
    see(page, study(NAME).statement)
    assert ("theme=dark" in page.url) == (theme == "dark")


def test_a_study_leads_to_its_scene_in_the_explorer(strict_page, server):
    page, (address, _) = strict_page, server
    page.goto(f"{address}?study={NAME}", timeout=PATIENCE)
    (scene,) = scenes(study(NAME))
    links = page.get_by_role("link", name=scene.title)
    links.first.wait_for(timeout=PATIENCE)
    assert links.count() == 2  # below the claim, and below its one figure
    links.last.click()
    page.wait_for_url(re.compile("/explorer"), timeout=PATIENCE)
    page.wait_for_function("() => window.toyguide?.panels[1]?.run", timeout=PATIENCE)
    assert page.evaluate("toyguide.boarded.panels[1].title").endswith("(w = 3)")


def test_a_wrong_name_is_told_and_the_list_is_there(strict_page, server):
    strict_page.goto(f"{server[0]}?study=cfg-is-not-titling", timeout=PATIENCE)
    see(strict_page, f"did you mean '{NAME}'")
    see(strict_page, list(studies().values())[-1].statement)


def test_a_run_is_found_again_after_a_reload_and_cancelled_and_ends_with_the_server(strict_page, server):
    page, (address, process) = strict_page, server
    page.goto(f"{address}?study={NAME}", timeout=PATIENCE)
    start(page)
    page.goto(f"{address}?study=sfg-cost", timeout=PATIENCE)
    see(page, re.compile(r"a quick look: \d+%"))
    see(page, "One study is run at a time.")
    assert page.get_by_role("button", name=re.compile("Run in full")).is_disabled()
    press(page, "Cancel")
    see(page, "cancelled. What is finished is kept: running it again continues.")
    assert children(process) == []
    start(page)
    (running,) = children(process)
    process.terminate()
    process.wait(30)
    with pytest.raises(ProcessLookupError):
        os.kill(running, 0)
