"""What a visitor takes along, in a real browser: the link, the code and files that hold what is shown."""

import json

import pytest

from toyguide import Experiment
from toyguide_apps.explorer_page.code import python_code, shell_code
from toyguide_apps.explorer_page.permalink import read
from toyguide_apps.explorer_page.state import ExplorerState

QUERY = {
    "dataset": "two-gaussians",
    "label": "left",
    "n": "128",
    "steps": "5",
    "rule": "cfg",
    "w": "2",
    "bands": "none",
}


@pytest.fixture
def scene(strict_page, address, context):
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    strict_page.goto(address + "?" + "&".join(f"{k}={v}" for k, v in QUERY.items()))
    strict_page.wait_for_function("() => window.toyguide && toyguide.panels.length === 2 && toyguide.panels[1].run")
    return strict_page


@pytest.fixture
def shown():
    state = ExplorerState()
    assert read(state, QUERY) == []
    return state


def copied(page):
    return page.evaluate("navigator.clipboard.readText()")


def test_the_link_opens_what_is_shown(scene, shown, address):
    scene.get_by_role("button", name="Copy link").click()
    scene.get_by_role("button", name="Copied").wait_for()
    link = copied(scene)
    assert link.startswith(address + "?v=2&seed=0&")
    again = ExplorerState()
    assert read(again, dict(pair.split("=") for pair in link.partition("?")[2].split("&"))) == []
    assert again.request() == shown.request()


def test_the_code_is_that_of_the_runs(scene, shown):
    scene.get_by_role("button", name="Export").click()
    for title, text in (("Python", python_code), ("Command line", shell_code)):
        scene.get_by_role("button", name=f"Copy: {title}").click()
        scene.get_by_role("dialog").get_by_text("Copied").first.wait_for()
        assert copied(scene) == text(shown.request().runs)
    scene.keyboard.press("Escape")
    assert not scene.get_by_role("dialog").is_visible()


def test_files_hold_the_runs(scene, shown, tmp_path):
    scene.get_by_role("button", name="Export").click()
    with scene.expect_download() as got:
        scene.get_by_role("button", name="Experiments").click()
    found = json.loads(got.value.path().read_text())
    assert got.value.suggested_filename == "toyguide.json"
    assert tuple(Experiment(**settings) for settings in found.values()) == shown.request().runs


def test_a_page_is_prepared_while_the_explorer_goes_on(scene, tmp_path):
    scene.get_by_role("button", name="Export").click()
    scene.get_by_role("button", name="Web page").click()
    scene.get_by_text("Preparing “Web page” …").wait_for()
    scene.keyboard.press("Escape")
    scene.get_by_role("button", name="One step back").click()  # nothing stands still meanwhile
    assert scene.evaluate("toyguide.time") == 4
    scene.get_by_role("button", name="Export").click()
    save = scene.get_by_text("Save toyguide.html")
    save.wait_for(timeout=90_000)
    with scene.expect_download() as got:
        save.click()
    path = tmp_path / "scene.html"
    got.value.save_as(path)
    other = scene.context.new_page()
    other.goto(path.as_uri())
    other.wait_for_function("() => window.toyguide && toyguide.stage.frames > 1")
    assert other.locator(".panel").count() == 2
    assert other.get_by_label("w of B").is_visible()
