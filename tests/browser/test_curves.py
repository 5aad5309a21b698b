"""A curve beside the pictures, and a sample that is followed, in a real browser."""

import pytest


@pytest.fixture
def explorer(explorer, address):
    return explorer.open(address, "?n=128&steps=8&bands=none&weak=exact%2Bnoise:0.2&curve=coverage,w&sample=3&seeds=3")


def model(explorer, name, prop):
    return explorer.page.evaluate("([n, p]) => Bokeh.documents[0].get_model_by_name(n)[p]", [name, prop])


def test_a_curve_appears_and_its_mark_can_be_dragged(explorer):
    explorer.wait("() => Bokeh.documents[0].get_model_by_name('mark-2-w').location == 3")
    figure = "Bokeh.documents[0].get_model_by_name('response')"
    explorer.wait(f"() => {figure}.renderers.some((r) => r.data_source.data.x.length == 17)")
    x, y, unit = explorer.page.evaluate(
        f"""() => {{
            const view = Bokeh.index.find_one({figure})
            view.el.scrollIntoView({{block: 'center'}})
            const box = view.el.getBoundingClientRect(), scale = view.frame.x_scale
            const middle = view.frame.bbox.top + view.frame.bbox.height / 2
            return [box.x + scale.compute(3), box.y + middle, scale.compute(4) - scale.compute(3)]
        }}"""
    )
    mouse = explorer.page.mouse
    mouse.move(x, y)
    mouse.down()
    for i in range(1, 9):
        mouse.move(x + i * unit / 8, y)
        explorer.page.wait_for_timeout(40)
    mouse.up()
    explorer.wait("() => toyguide.boarded.panels[1].title.endsWith('(w = 4)')")
    explorer.idle()
    assert abs(model(explorer, "mark-2-w", "location") - 4) < 0.02


def test_a_sample_is_followed_step_by_step_until_its_panel_is_closed(explorer):
    explorer.idle()
    explorer.wait("() => Bokeh.documents[0].get_model_by_name('trail-2').data.to_main.length == 8")
    said = explorer.page.get_by_text("Sample 3, step by step over")
    assert said.count() == 1
    explorer.page.get_by_role("button", name="Close", exact=True).first.click()
    said.wait_for(state="detached")
    explorer.page.wait_for_function("() => !location.search.includes('sample')")
