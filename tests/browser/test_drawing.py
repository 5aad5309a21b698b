"""What is drawn on the canvas, pixel by pixel, on screens of all sizes, in both themes, and without barriers."""

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import barriers
from scipy.stats import spearmanr

import toyguide as tg
import toyguide_apps.explorer_page
from toyguide_apps.explorer_page.panels import following

STAGE = Path(toyguide_apps.explorer_page.__file__).parent / "stage"

CUT_OFF = """() => {
    const wrong = []
    const scrolls = (at) => {
        for (; at; at = at.parentElement ?? at.getRootNode().host)
            if (/auto|scroll/.test(getComputedStyle(at).overflowX)) return true
        return false
    }
    for (const at of toyguide.element.querySelectorAll('*')) {
        const box = at.getBoundingClientRect()
        if (!box.width || !box.height || getComputedStyle(at).visibility === 'hidden') continue
        if ((box.right > innerWidth + 1 || box.left < -1) && !scrolls(at.parentElement))
            wrong.push(`${at.tagName} ${at.className} ${Math.round(box.left)} to ${Math.round(box.right)}`)
    }
    if (document.documentElement.scrollWidth > innerWidth) wrong.push('the page scrolls sideways')
    return wrong
}"""
SMALL = """() => [...toyguide.element.querySelectorAll('*')].filter((at) =>
    [...at.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim()) &&
    at.tagName !== 'STYLE' && parseFloat(getComputedStyle(at).fontSize) < 12).map((at) => at.outerHTML.slice(0, 80))"""


def colour(text):
    return np.array([int(text[i : i + 2], 16) for i in (1, 3, 5)])


def pixels_of(explorer, u, v):
    """Where coordinates are on the second panel's canvas: column and row."""
    left, _, right, top = explorer.stage("s.panels[1].frame.window")
    side = explorer.stage("s.panels[1].canvas.width")
    return (np.asarray(u) - left) / (right - left) * side, (top - np.asarray(v)) / (right - left) * side


def test_windows_are_computed_alike_on_both_sides(page):
    page.goto("about:blank")
    page.evaluate(
        (STAGE / "view.js").read_text() + "; Object.assign(window, { followed, unfollowed, positionAt, sigmaAt })"
    )
    base, home = (0.2, -0.1, 0.5, 0.3), (-1.0, -1.2, 1.4, 1.2)
    for sigma in (0.0, 0.01, 0.3, 5.0, 50.0):
        shown = page.evaluate("([b, h, s]) => followed(b, h, s)", [base, home, sigma])
        assert shown == pytest.approx(following(base, home, sigma))
        back = page.evaluate("([w, h, s]) => unfollowed(w, h, s)", [shown, home, sigma])
        assert back is None if sigma > 3 else back == pytest.approx(base, abs=1e-6)
    levels = tg.Experiment(steps=12).levels().tolist()
    for position in (0, 0.25, 3.5, 11, 11.75, 12):
        sigma = page.evaluate("([l, p]) => sigmaAt(l, p)", [levels, position])
        k = int(position)
        between = (
            levels[k] ** (1 - position + k) * levels[k + 1] ** (position - k)
            if position < 11
            else levels[11] * (12 - position)
        )
        assert sigma == pytest.approx(between, abs=1e-12)
        assert page.evaluate("([l, s]) => positionAt(l, s)", [levels, sigma]) == pytest.approx(position)


def test_a_phone_a_small_and_a_large_screen_in_the_dark(explorer, address):
    page = explorer.page
    page.emulate_media(color_scheme="dark")
    page.set_viewport_size({"width": 390, "height": 844})
    explorer.open(address, "?n=128&steps=12&step=8&layers=samples&panels=2").idle()
    assert page.get_by_label("Rule", exact=True).count() == 0 or not page.get_by_label("Rule", exact=True).is_visible()
    for width, height in ((390, 844), (1024, 768), (1440, 900)):
        page.set_viewport_size({"width": width, "height": height})
        page.wait_for_timeout(600)  # the sidebar moves
        explorer.rest()
        assert page.evaluate(CUT_OFF) == [], width
        assert page.evaluate(SMALL) == [], width
        if width != 1024:
            assert barriers(page) == [], width
    ground = page.evaluate("() => getComputedStyle(document.body).backgroundColor")
    assert sum(int(v) for v in ground.removeprefix("rgb(").removesuffix(")").split(",")[:3]) < 200

    # A background: the right way up, in place, and in the palette's colours.
    page.get_by_role("button", name="Layers").first.click()  # folded at first on a small screen
    look = explorer.stage("s.looks.dark")
    assert explorer.stage("s.look()") == look
    explorer.layer("Samples").click()
    explorer.wait("() => !toyguide.shows('samples')")
    explorer.idle()
    drawn, side = explorer.pixels(2), explorer.stage("s.panels[1].canvas.width")
    take = np.arange(40, side - 40, 5)
    left, _, right, top = explorer.stage("s.panels[1].frame.window")
    u, v = left + (take + 0.5) / side * (right - left), top - (take + 0.5) / side * (right - left)
    grid = torch.tensor(np.stack(np.meshgrid(u, v), -1), dtype=torch.float64)
    sigma = float(tg.Experiment(steps=12).levels()[8])
    exact = tg.load_dataset("fractal").field("A").log_density(grid, sigma).numpy()
    ground, seen = colour(look["ground"]), drawn[np.ix_(take, take)]
    depth = np.abs(seen - ground).sum(-1)
    inside = exact > exact.max() - 4

    def agrees(image):
        return spearmanr(image[inside], exact[inside]).statistic

    assert agrees(depth) > 0.9
    assert all(agrees(turned) < 0.7 for turned in (depth[::-1], depth[:, ::-1], depth.T))
    strongest = depth > 0.97 * depth.max()
    assert exact[strongest].min() > np.quantile(exact[inside], 0.6)
    band = look["bands"]["exact"][-1]
    wanted = ground + int(band[7:9], 16) / 255 * (colour(band) - ground)
    assert np.abs(np.median(seen[strongest], 0) - wanted).max() < 4
    page.get_by_label("Opacity of Background").fill("0.5")
    explorer.idle()
    faded = np.abs(explorer.pixels(2)[np.ix_(take, take)] - ground).sum(-1)
    assert faded[strongest] == pytest.approx(0.5 * depth[strongest], abs=6)

    # Samples that stand alone: their colour in the middle of where they are, their halo around it.
    explorer.layer("Samples").click()
    page.get_by_role("slider", name="Noise level").press("End")
    explorer.wait("() => toyguide.shows('samples') && toyguide.time === 12")
    explorer.idle()
    run, drawn = explorer.run(2), explorer.pixels(2)
    at = np.stack(pixels_of(explorer, run["x"][-128:], run["y"][-128:]), -1)
    apart = np.linalg.norm(at[:, None] - at[None], axis=-1) + 1e9 * np.eye(128)
    alone = np.flatnonzero((apart.min(-1) > 12) & (at > 20).all(-1) & (at < side - 20).all(-1))
    assert {run["outlier"][i] for i in alone} == {0, 1}
    for i in alone:
        column, row = np.floor(at[i]).astype(int)
        around = drawn[row - 6 : row + 7, column - 6 : column + 7]
        marked = np.abs(around - colour(look["outlier" if run["outlier"][i] else "sample"])).max(-1) < 60
        assert marked[6, 6]
        rows, columns = np.nonzero(marked)
        shift = np.array([columns.mean(), rows.mean()]) + 0.5 - 6 - (at[i] - [column, row])
        assert np.abs(shift).max() < (1.5 if run["outlier"][i] else 0.8)
        assert (np.abs(around - colour(look["halo"])).max(-1) < 30).any()


def test_nobody_is_kept_out_whatever_is_open(explorer, address):
    explorer.open(address, "?n=128&steps=12&bands=none&rule=cfg&limited=true&panels=4").idle()
    page = explorer.page
    assert barriers(page) == []
    for name in (
        "All numbers",
        "A metric against a parameter",
        "One point",
        "Errors over σ",
        "The edge between two classes",
    ):
        page.get_by_role("button", name=name, exact=True).first.click()
        page.get_by_role("button", name=name, exact=True, pressed=True).wait_for(timeout=90_000)
    explorer.page.mouse.move(*explorer.at(1, 0, 0))
    explorer.idle()
    page.get_by_label("First coordinate").wait_for(timeout=90_000)
    assert page.evaluate(CUT_OFF) == []
    assert barriers(page) == []
