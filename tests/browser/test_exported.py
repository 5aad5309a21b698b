"""Exported files as a visitor opens them from a disk: no server, no request, and what the explorer would show."""

import re
import subprocess
import sys

import pytest

import toyguide as tg
from toyguide_apps.explorer_page.glossary import glossary
from toyguide_apps.explorer_page.presets import presets

READY = "() => window.toyguide && toyguide.stage.frames > 1"
MEGABYTES = 10
TITLE = presets()["figure-1e"].title


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A preset of 2,048 samples and 32 steps with eleven weights."""
    path = tmp_path_factory.mktemp("export") / "scene.html"
    command = [sys.executable, "-m", "toyguide", "export", str(path), "--preset", "figure-1e", "--slider", "w=1:5:11"]
    subprocess.run(command, check=True, capture_output=True)
    return path


@pytest.fixture
def strict_file(page):
    """A page on which any error, and any request but for the file itself, fails the test."""
    errors, asked = [], []
    page.on("pageerror", lambda e: errors.append(str(e)))
    page.on("console", lambda m: errors.append(m.text) if m.type in ("error", "warning") else None)
    page.on("request", lambda r: asked.append(r.url))
    yield page
    assert [url for url in asked if not re.match("file:|data:", url)] == []
    assert errors == []


@pytest.fixture
def scene(strict_file, exported):
    strict_file.goto(exported.as_uri())
    strict_file.wait_for_function(READY)
    return strict_file


def numbers(page):
    """The headline's numbers of each panel, as they are read."""
    return page.locator(".numbers > div").evaluate_all(
        "cells => Object.fromEntries(cells.map(c => [c.querySelector('.term').innerText,"
        " [...c.querySelectorAll('.values b')].map(b => b.innerText)]))"
    )


def place(page, panel, sample):
    """Where a sample is drawn, in pixels of the page, and in the plane."""
    return page.evaluate(
        """([panel, sample]) => {
            const view = toyguide.stage.panels[panel], box = view.canvas.getBoundingClientRect()
            const [u, v] = view.place(sample, view.position())
            return [box.x + view.frame.x(u), box.y + view.frame.y(v), u, v]
        }""",
        [panel, sample],
    )


def picture_of(page, panel=1):
    """A panel's pixels."""
    page.wait_for_timeout(350)  # lines are drawn anew once the view rests
    return page.locator(".plot canvas").nth(panel).evaluate("c => c.toDataURL()")


def test_eleven_weights_of_two_thousand_samples_are_small(exported):
    assert exported.stat().st_size < MEGABYTES * 1e6


def test_it_shows_the_preset_with_the_numbers_of_its_run(scene):
    assert scene.title() == scene.locator("h1").inner_text() == TITLE
    run = tg.Experiment("fractal", "A", n=2048, rule="autoguidance", params={"w": 3.0})
    for i, experiment in enumerate((tg.Experiment("fractal", "A", n=2048), run)):
        metrics = experiment.run("cpu").metrics()
        for label, name in (("Outliers", "outliers"), ("Coverage", "coverage"), ("Dropped mass", "dropped_mass")):
            assert numbers(scene)[label][i] == f"{100 * metrics[name]:.1f} %"
    assert scene.locator(".panel").count() == 2


def test_a_slider_shows_another_run(scene):
    before, picture = numbers(scene), picture_of(scene)
    slider = scene.get_by_label("w of B")
    assert slider.get_attribute("aria-valuetext") == "3"
    slider.focus()
    slider.press("End")
    assert slider.get_attribute("aria-valuetext") == "5"
    assert "w = 5" in scene.locator(".panel .title").nth(1).inner_text()
    metrics = tg.Experiment("fractal", "A", n=2048, rule="autoguidance", params={"w": 5.0}).run("cpu").metrics()
    assert numbers(scene)["Outliers"][1] == f"{100 * metrics['outliers']:.1f} %"
    assert numbers(scene)["Outliers"][0] == before["Outliers"][0]
    assert scene.locator("h1").inner_text() != TITLE
    assert picture_of(scene) != picture
    for _ in range(5):
        slider.press("ArrowLeft")
    assert numbers(scene) == before
    assert picture_of(scene) == picture


def test_it_plays_from_noise_to_data(scene):
    first = scene.evaluate("toyguide.stage.time")
    assert first == 32
    scene.get_by_label("Speed").select_option("4")
    scene.get_by_role("button", name="Replay").click()
    scene.wait_for_function("() => toyguide.stage.time > 2 && toyguide.stage.time < 28")
    scene.wait_for_function("() => toyguide.stage.time === 32 && !toyguide.stage.playing")


def test_layers_follow_the_time_line_and_can_be_switched(scene):
    scene.evaluate("toyguide.stage.go(18)")
    plain = picture_of(scene)
    images = set()
    for step in (6, 18, 30):
        scene.evaluate(f"toyguide.stage.go({step})")
        assert scene.evaluate("toyguide.stage.sceneAt(1).step") == step
        images.add(scene.evaluate("toyguide.stage.sceneAt(1).image.join('')"))
    assert len(images) == 3
    scene.evaluate("toyguide.stage.go(18)")
    for name in ("Score", "The rule's push", "Main field", "Upward-curving directions", "Paths", "Moves from A"):
        box = scene.get_by_role("checkbox", name=name)
        box.check()
        assert picture_of(scene) != plain, name
        box.uncheck()
        assert picture_of(scene) == plain, name
    scene.get_by_label("Background", exact=True).select_option("none")
    bare = picture_of(scene)
    assert bare != plain
    scene.get_by_label("Background", exact=True).select_option("exact")
    scene.get_by_label("Opacity of Samples").fill("0.3")
    assert picture_of(scene) not in (bare, plain)


def test_hovering_says_what_a_sample_is_and_a_click_lights_its_path(scene):
    plain = picture_of(scene, 0)
    x, y, u, v = place(scene, 1, 1000)
    scene.mouse.move(x, y)
    found = re.search(r"sample (\d+) at \((-?[\d.]+), (-?[\d.]+)\)", scene.locator(".tip:visible").inner_text())
    assert (float(found[2]), float(found[3])) == pytest.approx((u, v), abs=0.05)
    scene.mouse.click(x, y)
    assert scene.evaluate("toyguide.stage.sample") == int(found[1])
    scene.mouse.move(5, 5)
    assert picture_of(scene, 0) != plain
    scene.keyboard.press("Escape")
    assert picture_of(scene, 0) == plain


def test_words_are_explained(scene):
    scene.get_by_role("button", name="Coverage").click()
    entry = next(e for e in glossary().values() if e.metric == "coverage")
    assert scene.get_by_text(entry.text).is_visible()


def test_the_view_can_be_moved_and_brought_back(scene):
    plain = picture_of(scene)
    canvas = scene.locator(".plot canvas").first
    canvas.press("+")
    assert picture_of(scene) != plain
    canvas.press("0")
    assert picture_of(scene) == plain


def test_what_needs_a_server_is_not_there(scene):
    for name in ("Copy panel A", "Swap panel A with the next", "Remove panel B", "One point"):
        assert not scene.get_by_role("button", name=name).first.is_visible()
    box = scene.locator(".plot canvas").first.bounding_box()
    plain = picture_of(scene, 0)
    scene.mouse.click(box["x"] + 12, box["y"] + box["height"] - 60)  # where there is no sample
    scene.mouse.move(5, 5)
    assert scene.evaluate("toyguide.stage.point") is None
    assert picture_of(scene, 0) == plain


def test_the_theme_follows_the_system_and_can_be_changed(scene):
    def ground():
        return scene.evaluate("getComputedStyle(document.body).backgroundColor")

    light, plain = ground(), picture_of(scene)
    scene.emulate_media(color_scheme="dark")
    scene.locator("html.dark").wait_for()
    assert ground() != light
    assert picture_of(scene) != plain
    scene.get_by_role("button", name="Light").click()
    assert ground() == light
    assert picture_of(scene) == plain


def test_the_code_is_that_of_the_values_shown(scene):
    scene.get_by_text("The code of these runs").click()
    assert "params={'w': 3.0}" not in scene.locator("pre").first.inner_text()  # the usual value goes without saying
    scene.get_by_label("w of B").press("End")
    assert "params={'w': 5.0}" in scene.locator("pre").first.inner_text()
    assert "--set=w=5.0" in scene.locator("pre").last.inner_text()


@pytest.mark.parametrize("size", [(1440, 900), (1024, 768), (390, 844)])
def test_nothing_is_cut_off_and_no_text_is_tiny(scene, size):
    scene.set_viewport_size({"width": size[0], "height": size[1]})
    scene.wait_for_timeout(400)
    assert scene.evaluate("document.documentElement.scrollWidth") <= size[0]
    tiny = """() => [...document.querySelectorAll('body *')].filter((e) => e.checkVisibility() && parseFloat(
        getComputedStyle(e).fontSize) < 12 && [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim()))
        .map((e) => e.outerHTML.slice(0, 80))"""
    assert scene.evaluate(tiny) == []
