"""The explorer as a visitor uses it, in a real browser."""

import re

import pytest
import torch

import toyguide as tg
from toyguide_apps.explorer_page.panels import nearest
from toyguide_apps.explorer_page.planes import home_window, plane
from toyguide_apps.explorer_page.presets import presets
from toyguide_apps.explorer_page.state import LAYERS

QUICK = "n=128&steps=12"


def test_opens_with_a_picture_metrics_and_no_error(explorer, address):
    explorer.open(address).idle()
    assert explorer.size("panel-2-points") == explorer.size("panel-1-points") == 512
    assert explorer.title(2).startswith("Autoguidance")
    for word in ("Outliers", "Coverage", "Dropped mass", "Truth (512 exact samples)", "Evaluations"):
        assert word in explorer.table()
    plots = [c.bounding_box() for c in explorer.page.locator(".bk-Canvas").all()]
    scrubber = explorer.page.locator("input[type=range]").last.bounding_box()
    assert all(p["y"] + p["height"] <= scrubber["y"] for p in plots)
    assert all(0.85 < p["width"] / p["height"] < 1.15 for p in plots)
    box = explorer.page.locator("table").bounding_box()
    assert box["y"] + box["height"] <= 900  # all of it without scrolling


@pytest.mark.parametrize(("rule", "sliders"), [("cfg", 1), ("autoguidance", 1), ("sfg", 3)])
def test_each_slider_changes_the_right_picture_and_its_metrics_alone(explorer, address, rule, sliders):
    # Two Gaussians under SFG: a trajectory near the saddle feels w, alpha and h alike.
    scene = "dataset=two-gaussians&label=union&weak=exact%2Bnoise:0.5&" if rule == "sfg" else ""
    explorer.open(address, f"?{scene}{QUICK}&rule={rule}&bands=none").idle()
    for i in range(sliders):
        handle = explorer.page.locator("input[type=range]").nth(i)
        right, left = explorer.column("panel-2-frames"), explorer.column("panel-1-frames")
        title, table = explorer.title(2), explorer.table()
        handle.focus()
        for _ in range(3):
            handle.press("ArrowRight")
        explorer.changed("panel-2-frames", right)
        explorer.idle()
        assert explorer.title(2) != title
        assert explorer.table() != table
        assert explorer.column("panel-1-frames") == left


def test_dragging_draws_few_samples_and_letting_go_all_of_them(explorer, address):
    explorer.open(address, "?n=512&steps=12&rule=cfg&bands=none").idle()
    slider = explorer.page.locator("input[type=range]").first
    thumb = slider.locator("xpath=..").bounding_box()
    x, y = thumb["x"] + thumb["width"] / 2, thumb["y"] + thumb["height"] / 2
    table, left = explorer.table(), explorer.column("panel-1-frames")
    explorer.page.evaluate(
        """() => {
            const title = Bokeh.documents[0].get_model_by_name('panel-2-figure').title
            window.seen = []
            title.properties.text.change.connect(() => window.seen.push(title.text))
        }"""
    )
    explorer.page.mouse.move(x, y)
    explorer.page.mouse.down()
    for i in range(1, 13):
        explorer.page.mouse.move(x + 4 * i, y)
        explorer.page.wait_for_timeout(40)
    explorer.wait("() => window.seen.some((t) => t.includes('first 128 of 512'))")
    explorer.page.mouse.up()
    explorer.wait("() => Bokeh.documents[0].get_model_by_name('panel-2-points').data.x.length == 512")
    explorer.idle()
    assert "first" not in explorer.title(2)
    assert explorer.table() != table
    assert explorer.column("panel-1-frames") == left
    weights = [float(re.search(r"w = ([\d.]+)", t)[1]) for t in explorer.page.evaluate("() => window.seen")]
    assert weights == sorted(weights)
    assert explorer.size("panel-2-frames") == 13 * 512


def test_the_scrubber_moves_the_points_along_their_stored_trajectories(explorer, address):
    explorer.open(address, f"?{QUICK}&bands=none&layers=samples,paths").idle()
    frames = explorer.column("panel-2-frames")
    last = explorer.column("panel-2-points")
    assert last == frames[12 * 128 :]
    scrubber = explorer.page.locator("input[type=range]").last
    scrubber.focus()
    scrubber.press("Home")
    explorer.changed("panel-2-points", last)
    assert explorer.column("panel-2-points") == frames[:128]
    for _ in range(3):
        scrubber.press("ArrowRight")
    explorer.wait(
        "(want) => { const x = Bokeh.documents[0].get_model_by_name('panel-2-points').data.x; return x[0] === want }",
        frames[3 * 128],
    )
    assert explorer.column("panel-2-points") == frames[3 * 128 : 4 * 128]
    assert explorer.column("panel-2-frames") == frames


def test_a_panel_with_other_steps_is_scrubbed_to_the_nearest_noise_level(explorer, address):
    explorer.open(address, f"?{QUICK}&bands=none&layers=samples&ref:steps=20&step=4").idle()
    frames = explorer.column("panel-1-frames")
    assert len(frames) == 21 * 128
    levels = tg.Experiment(steps=20).levels().tolist()
    scrubber = explorer.page.locator("input[type=range]").last
    scrubber.focus()
    for step in (5, 6, 7):
        at = nearest(levels, float(tg.Experiment(steps=12).levels()[step]))
        assert at != step
        scrubber.press("ArrowRight")
        explorer.wait(
            "(want) => Bokeh.documents[0].get_model_by_name('panel-1-points').data.x[0] === want", frames[at * 128]
        )
        assert explorer.column("panel-1-points") == frames[at * 128 : (at + 1) * 128]
    scrubber.press("End")
    explorer.wait("(want) => Bokeh.documents[0].get_model_by_name('panel-1-points').data.x[0] === want", frames[-128])


def test_play_and_step_buttons_move_the_scrubber(explorer, address):
    explorer.open(address, f"?{QUICK}&bands=none&layers=samples&step=0").idle()
    frames = explorer.column("panel-2-frames")
    at = "(want) => Bokeh.documents[0].get_model_by_name('panel-2-points').data.x[0] === want"
    explorer.press("One step on")
    explorer.wait(at, frames[128])
    explorer.press("One step back")
    explorer.wait(at, frames[0])
    explorer.press("Play")
    explorer.wait(at, frames[12 * 128])


def test_every_layer_can_be_switched_on_and_off(explorer, address):
    scene = "dataset=two-gaussians&label=union&step=5&rule=sfg&bands=none&layers=region"
    explorer.open(address, f"?{scene}&{QUICK}").idle()
    drawn_in = {
        "guidance": "panel-2-guidance",
        "paths": "panel-2-paths",
        "samples": "panel-2-points",
        "critical": "modes",
    }
    for key, text in LAYERS.items():
        source = drawn_in.get(key, key)
        button = explorer.page.get_by_role("button", name=text, exact=True)
        longer = "([s, c, on]) => (Bokeh.documents[0].get_model_by_name(s).data[c].length > 1) === on"
        column = "x0" if "guidance" in source or source in ("score", "saddles") else "x"
        on = key == "region"
        for now in (not on, on):
            button.click()
            explorer.wait(longer, [source, column, now])


def test_backgrounds_and_sources_change_the_picture(explorer, address):
    explorer.open(address, f"?{QUICK}&step=6&rule=cfg&layers=score").idle()
    image = "Array.from(Bokeh.documents[0].get_model_by_name('image').data.image[0] ?? []).join('')"
    shown = "Exact density"
    for name in ("Main density", "Guide density", "Ratio main : guide"):
        before = explorer.page.evaluate(f"() => {image}")
        explorer.page.get_by_text(shown, exact=True).first.click()
        explorer.page.get_by_text(name, exact=True).last.click()
        explorer.wait(f"(before) => {image} !== before", before)
        shown = name
    before = explorer.column("score", "x1")
    explorer.page.get_by_role("button", name="Exact", exact=True).click()
    explorer.wait("(b) => Bokeh.documents[0].get_model_by_name('score').data.x1[5] !== b", before[5])


def test_every_preset_can_be_chosen_one_after_another(explorer, address):
    explorer.open(address, f"?{QUICK}").idle()
    for preset in presets().values():
        explorer.choose("Preset", preset.title)
        explorer.page.get_by_text(preset.look[:40]).wait_for(timeout=90_000)
        explorer.idle()
        rule = preset.settings["rule"]
        wanted = {
            "none": "Unguided",
            "cfg": "Classifier",
            "sfg": "Saddle",
            "score-scaling": "Score",
            "autoguidance": "Auto",
        }
        # A busy machine draws the picture later than the sentence about it.
        explorer.wait(
            "(start) => Bokeh.documents[0].get_model_by_name('panel-2-figure').title.text.startsWith(start)",
            wanted[rule],
        )
        assert explorer.size("panel-2-points") > 0


def test_a_url_restores_a_picture_and_wrong_values_are_told(explorer, address):
    query = f"?{QUICK}&rule=sfg&w=9&ref=cfg&ref.w=2&seed=5&label=Q&h=huge&colour=red"
    explorer.open(address, query)
    for part in ("'Q'", "'huge'", "'colour'"):
        explorer.page.get_by_text(re.compile(re.escape(part))).first.wait_for(timeout=90_000)
    explorer.idle()
    assert "w = 9" in explorer.title(2)
    assert "w = 2" in explorer.title(1)
    assert explorer.size("panel-2-points") == 128


def test_the_address_follows_and_a_reload_brings_the_same_picture(explorer, address):
    explorer.open(address, f"?{QUICK}").idle()
    explorer.choose("Rule", "Score scaling (naive truncation)")
    explorer.page.wait_for_url(re.compile("rule=score-scaling"), timeout=90_000)
    points = explorer.column("panel-2-points")
    explorer.open(explorer.page.url).idle()
    assert explorer.column("panel-2-points") == points


def test_a_second_visit_after_the_first_has_gone_needs_no_network_either(explorer, address):
    explorer.open(address, f"?{QUICK}").idle()
    explorer.page.goto("about:blank")
    explorer.page.wait_for_timeout(1_000)
    explorer.open(address, f"?{QUICK}").idle()
    assert explorer.size("panel-2-points") == 128


def test_a_hand_made_message_is_refused_and_the_picture_stays(explorer, address):
    explorer.open(address, f"?{QUICK}").idle()
    points = explorer.column("panel-2-points")
    # A value no slider offers, sent as the slider's own.
    explorer.page.evaluate(
        """() => { for (const m of Bokeh.documents[0].all_models)
                     if (m.data?.fixed_end === 30) { m.data.value = 1e9; return } throw Error('no slider') }"""
    )
    explorer.page.get_by_text(re.compile("expected a number from")).first.wait_for(timeout=90_000)
    assert explorer.column("panel-2-points") == points
    handle = explorer.page.locator("input[type=range]").first
    handle.focus()
    handle.press("Home")
    explorer.changed("panel-2-points", points)


def test_dark_theme_and_narrow_page_keep_everything_legible(explorer, address):
    explorer.page.set_viewport_size({"width": 1024, "height": 768})
    explorer.open(address, f"?{QUICK}&theme=dark").idle()
    colour = explorer.page.evaluate("() => getComputedStyle(document.body).backgroundColor")
    assert sum(int(v) for v in re.findall(r"\d+", colour)[:3]) < 200
    widths = [c.bounding_box()["width"] for c in explorer.page.locator(".bk-Canvas").all()]
    assert all(w > 250 for w in widths)
    assert explorer.page.evaluate("() => document.documentElement.scrollWidth") <= 1024
    table = explorer.page.locator("table").bounding_box()
    assert table["x"] + table["width"] <= 1024


def test_a_click_opens_the_inspector_with_the_exact_numbers_and_escape_closes_it(explorer, address):
    scene = "dataset=two-gaussians&label=union&step=6&rule=sfg&bands=none&layers=region"
    explorer.open(address, f"?{scene}&{QUICK}").idle()
    explorer.page.wait_for_timeout(1_000)  # the page's own layout stands by then
    plots = [c.bounding_box() for c in explorer.page.locator(".bk-Canvas").all()]
    explorer.click(2, 0.1, 0.3)
    explorer.wait("() => Bokeh.documents[0].get_model_by_name('panel-2-way').data.x.length > 1")
    explorer.idle()
    assert [c.bounding_box() for c in explorer.page.locator(".bk-Canvas").all()] == plots  # nothing is pushed around
    [u], [v] = explorer.column("point"), explorer.column("point", "y")
    assert (u, v) == pytest.approx((0.1, 0.3), abs=0.02)  # to a pixel
    explorer.page.get_by_label("Second coordinate").click()
    explorer.page.wait_for_timeout(300)  # the box takes its text over when it has the focus
    explorer.page.keyboard.press("Control+A")
    explorer.page.keyboard.type("0.25")
    explorer.page.keyboard.press("Enter")
    explorer.wait("() => Math.abs(Bokeh.documents[0].get_model_by_name('point').data.y[0] - 0.25) < 1e-6")
    explorer.idle()

    data = tg.load_dataset("two-gaussians")
    sigma = float(tg.Experiment(dataset="two-gaussians", steps=12).levels()[6])
    u = float(explorer.page.get_by_label("First coordinate").input_value())
    x = torch.tensor([u, 0.25], dtype=torch.float64)
    score = data.field().score(x, sigma)
    top = sigma**2 * torch.linalg.eigvalsh(data.field().hessian(x, sigma))[-1]
    said = " ".join(explorer.page.locator("table").all_inner_texts())
    for number in (f"({score[0]:.3g}, {score[1]:.3g})", f"{top:+.3f}", f"{data.posterior(x, sigma)[1]:.3f}"):
        assert number in said, number
    explorer.page.wait_for_url(re.compile("point="), timeout=90_000)

    way = explorer.column("panel-2-way")
    explorer.page.locator("input[type=range]").first.press("ArrowRight")  # w: the inspector follows
    explorer.changed("panel-2-way", way)
    explorer.page.keyboard.press("Escape")
    explorer.wait("() => Bokeh.documents[0].get_model_by_name('point').data.x.length == 0")
    explorer.page.get_by_label("Second coordinate").wait_for(state="hidden", timeout=90_000)


def choose(explorer, box, name):
    box.click()
    explorer.page.keyboard.press("Control+A")
    explorer.page.keyboard.type(name)
    explorer.page.wait_for_timeout(300)
    explorer.page.keyboard.press("Enter")


def test_another_plane_in_sixteen_dimensions_and_an_edge(explorer, address):
    explorer.open(address, f"?dataset=simplex16&main=exact&step=6&bands=none&layers=critical&{QUICK}").idle()
    frames = explorer.column("panel-2-frames")
    box = explorer.page.get_by_role("combobox", name="left")
    choose(explorer, box, "v9")
    explorer.changed("panel-2-frames", frames)
    explorer.wait("() => Bokeh.documents[0].get_model_by_name('modes').data.x.length == 3")
    anchors = ("v9", "v2", "v3")
    assert explorer.page.evaluate(
        "() => Bokeh.documents[0].get_model_by_name('panel-2-figure').x_range.end"
    ) == pytest.approx(home_window("simplex16", anchors)[2])
    data = tg.load_dataset("simplex16")
    corner = plane("simplex16", anchors).project(data.field("v9").mean)
    assert min(explorer.column("modes")) == pytest.approx(float(corner[0]), abs=0.1)

    explorer.page.get_by_role("button", name="Edge").click()
    explorer.wait("() => Bokeh.documents[0].get_model_by_name('profile-curvature').data.t.length > 0")
    t, top = explorer.column("profile-curvature", "t"), explorer.column("profile-curvature", "exact")
    assert t[top.index(max(top))] == pytest.approx(0.5)
    explorer.page.wait_for_url(re.compile("plane=v9,v2,v3.*profile=true"), timeout=90_000)
    choose(explorer, box, "nowhere")
    explorer.page.get_by_text(re.compile("'nowhere'")).first.wait_for(timeout=90_000)
    explorer.wait("() => Bokeh.documents[0].get_model_by_name('modes').data.x.length == 3")
    assert box.input_value() == "v9"


def test_the_error_in_the_plane_and_over_the_noise_levels(explorer, address):
    scene = "dataset=two-gaussians&label=union&step=6&rule=autoguidance&weak=exact%2Bnoise:0.2&bands=error-ratio"
    explorer.open(address, f"?{scene}&{QUICK}").idle()
    explorer.page.get_by_text("length of the guided error").wait_for(timeout=90_000)
    explorer.page.get_by_role("button", name="Errors").click()
    explorer.wait("() => Bokeh.documents[0].get_model_by_name('errors-2').data.sigma.length > 0")
    assert len(explorer.page.locator(".bk-Canvas").all()) == 5
    assert max(explorer.column("errors-2", "shortened")) <= 1
    explorer.page.wait_for_url(re.compile("errors=true"), timeout=90_000)
    explorer.page.get_by_role("button", name="Close").last.click()
    explorer.page.wait_for_url(re.compile("^((?!errors=).)*$"), timeout=90_000)
