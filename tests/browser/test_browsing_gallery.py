"""The gallery as a visitor opens it from a disk: every page, every link, in both themes and on a phone."""

import re
import subprocess
import sys
from urllib.parse import urljoin

import pytest

from toyguide.studies import studies
from toyguide_apps.explorer_page.presets import presets

PRESET = "two-gaussians"
TINY = """() => [...document.querySelectorAll('body *')].filter((e) => parseFloat(getComputedStyle(e).fontSize) < 12
    && [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim())).map((e) => e.outerHTML.slice(0, 80))"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gallery") / "site"
    command = [sys.executable, "-m", "toyguide", "gallery", "-o", str(folder), "--preset", PRESET]
    subprocess.run(command, check=True, capture_output=True)
    return folder


@pytest.fixture
def visit(page):
    """A page on which any error, and any request that does not stay on the disk, fails the test."""
    errors, asked = [], []
    page.on("pageerror", lambda e: errors.append(str(e)))
    page.on("console", lambda m: errors.append(m.text) if m.type in ("error", "warning") else None)
    page.on("requestfailed", lambda r: errors.append(r.url))
    page.on("request", lambda r: asked.append(r.url))
    yield page
    assert [url for url in asked if not re.match("file:|data:", url)] == []
    assert errors == []


def test_every_page_opens_and_every_link_leads_somewhere(site, visit):
    pages = sorted(site.rglob("*.html"))
    assert {p.relative_to(site).as_posix() for p in pages} >= {"index.html", f"scenes/{PRESET}.html"}
    for path in pages:
        visit.goto(path.as_uri())
        assert visit.locator("h1").first.inner_text()
        links = visit.locator("a").evaluate_all("all => all.map((a) => a.href)")
        assert links
        for link in links:
            target = urljoin(path.as_uri(), link)
            assert (site / target.removeprefix(site.as_uri() + "/")).is_file(), (path, link)
        broken = "all => all.filter((i) => !i.complete || !i.naturalWidth).length"
        visit.locator("img").evaluate_all("all => all.forEach((i) => i.scrollIntoView())")
        visit.wait_for_function(f"() => ({broken})([...document.images]) === 0")


def test_the_index_shows_presets_and_studies(site, visit):
    visit.goto((site / "index.html").as_uri())
    text = visit.locator("body").inner_text()
    assert presets()[PRESET].title in text
    assert presets()[PRESET].look in text
    for study in studies().values():
        assert study.statement in text
    visit.get_by_role("link", name=presets()[PRESET].title).click()
    visit.wait_for_function("() => window.toyguide && toyguide.stage.frames > 1")
    visit.get_by_role("link", name=re.compile("The claim of the study")).click()
    assert visit.locator("h1").inner_text() == studies()[presets()[PRESET].study].title
    visit.get_by_role("link", name=presets()[PRESET].title).click()
    visit.get_by_role("link", name="All scenes").click()
    assert visit.title() == "toyguide"


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_pages_are_legible(site, visit, width, theme):
    visit.set_viewport_size({"width": width, "height": 900})
    visit.emulate_media(color_scheme=theme)
    study = presets()[PRESET].study
    for name in ("index.html", f"studies/{study}.html"):
        visit.goto((site / name).as_uri())
        assert visit.evaluate("document.documentElement.scrollWidth") <= width
        assert visit.evaluate(TINY) == []
        ground = visit.evaluate("getComputedStyle(document.body).backgroundColor")
        assert ground == {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 24, 30)"}[theme]
