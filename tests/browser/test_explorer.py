"""The explorer as a visitor uses it, in a real browser."""

import re

import numpy as np
import pytest
import torch

import toyguide as tg
from toyguide_apps.explorer_page.planes import home_window, plane
from toyguide_apps.explorer_page.presets import OPENING, presets
from toyguide_apps.explorer_page.state import LAYERS, ExplorerState
from toyguide_apps.explorer_page.views.parts import named

QUICK = "n=128&steps=12"
PAIR = f"dataset=two-gaussians&label=union&{QUICK}"


def percent(share):
    return f"{100 * share:.1f} %"


def test_opens_with_a_picture_a_headline_and_three_steps_and_plays_to_the_end(explorer, address):
    explorer.open(address).idle()
    page = explorer.page
    opening = presets()[OPENING]
    assert page.get_by_role("heading", level=1).inner_text() == opening.title
    assert opening.look in page.locator(".headline").inner_text()
    n = opening.settings["n"]
    assert [explorer.run(i)["n"] for i in (1, 2)] == [n, n]
    shares = [percent(np.mean(explorer.run(i)["outlier"])) for i in (1, 2)]
    numbers = page.locator(".numbers").inner_text()
    assert re.search(rf"^Outliers.*\n{shares[0]}\s*→\s*{shares[1]}", numbers), numbers
    assert page.locator("table", has_text="Evaluations").count() == 0  # folded
    card = page.get_by_role("dialog", name="First steps")
    for button in ("Next", "Next", "Start"):
        card.get_by_role("button", name=button).click()
    assert card.count() == 0
    plots = [page.locator("canvas[role=application]").nth(i).bounding_box() for i in (0, 1)]
    line = page.get_by_role("slider", name="Noise level").bounding_box()
    assert all(plot["y"] + plot["height"] <= line["y"] < 880 for plot in plots)
    assert all(plot["width"] == plot["height"] > 350 for plot in plots)

    last = explorer.stage("s.levels.length - 1")
    assert explorer.stage("s.time") == last
    page.evaluate(
        """() => {
            window.seen = []
            const look = () => { seen.push([toyguide.time, toyguide.window()[2]]); requestAnimationFrame(look) }
            look()
        }"""
    )
    explorer.press("Replay")
    explorer.wait("() => toyguide.playing && toyguide.time > 2")
    page.keyboard.press("Escape")
    explorer.press("Pause")
    explorer.rest()
    at = explorer.stage("s.time")
    assert 2 <= at < last
    assert at == int(at)
    explorer.press("Play")
    explorer.wait("(last) => !toyguide.playing && toyguide.time === last", last)
    times, edges = zip(*page.evaluate("() => window.seen"), strict=True)
    replayed = times[times.index(min(times)) :]
    assert min(times) < 1
    assert len(set(replayed)) > 60
    assert max(edges) > 10 > 2 > edges[-1]  # the view follows from the noise to the data
    explorer.idle()

    page.locator(".more").get_by_text("All numbers").click()
    page.locator("table", has_text="Evaluations").wait_for()
    for word in ("Outliers", "Coverage", "Dropped mass", f"{n} exact samples", "B − A", shares[0], shares[1]):
        assert word in explorer.table()
    page.reload()
    explorer.wait("() => toyguide.panels.length == 2 && toyguide.panels[1].run")
    assert card.count() == 0  # never again


def test_each_slider_changes_the_right_picture_and_its_metrics_alone(explorer, address):
    # Two Gaussians under SFG: a trajectory near the saddle feels w, alpha and h alike.
    explorer.open(address, f"?{PAIR}&weak=exact%2Bnoise:0.5&rule=sfg&bands=none&table=true").idle()
    for i in range(3):
        handle = explorer.page.locator("input[type=range]").nth(i)
        right, left = explorer.ends(2), explorer.ends(1)
        title, table, headline = explorer.title(2), explorer.table(), explorer.page.locator(".headline").inner_text()
        handle.focus()
        for _ in range(3):
            handle.press("ArrowRight")
        explorer.changed(2, right)
        explorer.idle()
        assert explorer.title(2) != title
        assert (explorer.table(), explorer.page.locator(".headline").inner_text()) != (table, headline)
        assert explorer.ends(1) == left


def test_a_drag_draws_few_samples_and_then_all_and_is_one_step_back(explorer, address):
    explorer.open(address, "?n=512&steps=12&rule=cfg&bands=none").idle()
    page = explorer.page
    first, before = explorer.title(2), explorer.ends(2)
    entries = page.evaluate("() => history.length")
    thumb = page.locator("input[type=range]").first.locator("xpath=..").bounding_box()
    x, y = thumb["x"] + thumb["width"] / 2, thumb["y"] + thumb["height"] / 2
    headline, left = page.locator(".numbers").inner_text(), explorer.ends(1)
    page.evaluate(
        """() => {
            window.seen = []
            const set = toyguide.set.bind(toyguide)
            toyguide.set = (name, value) => { set(name, value); if (name === 'board') seen.push(value.panels[1].title) }
        }"""
    )
    page.mouse.move(x, y)
    page.mouse.down()
    for i in range(1, 13):
        page.mouse.move(x + 4 * i, y)
        page.wait_for_timeout(40)
    explorer.wait("() => window.seen.some((title) => title.includes('first 128 of 512'))")
    page.mouse.up()
    explorer.wait("() => toyguide.panels[1].run.n === 512 && !toyguide.boarded.panels[1].title.includes('first')")
    explorer.idle()
    assert page.locator(".numbers").inner_text() != headline
    assert explorer.ends(1) == left
    weights = [float(re.search(r"w = ([\d.]+)", title)[1]) for title in page.evaluate("() => window.seen")]
    assert weights == sorted(weights)
    assert len(explorer.run(2)["x"]) == 13 * 512
    dragged, after = explorer.title(2), explorer.ends(2)

    page.wait_for_url(re.compile(f"w={weights[-1]:g}(&|$)"), timeout=90_000)
    page.wait_for_timeout(700)  # longer than the pause before an address is written
    assert page.evaluate("() => history.length") == entries + 1
    page.go_back()
    explorer.titled(2, first)
    explorer.changed(2, after)
    assert explorer.ends(2) == before
    page.go_forward()
    explorer.titled(2, dragged)
    explorer.changed(2, before)
    assert explorer.ends(2) == after
    page.wait_for_timeout(700)
    assert f"w={weights[-1]:g}" in page.url
    assert page.evaluate("() => history.length") == entries + 1


def test_the_time_line_moves_samples_along_their_runs_and_asks_for_layers_alone(explorer, address):
    explorer.open(address, f"?{QUICK}&bands=none&layers=samples,paths&ref:steps=20").idle()
    page = explorer.page
    runs = [explorer.run(i) for i in (1, 2)]
    levels = tg.Experiment(steps=12).levels().tolist()
    np.testing.assert_allclose(explorer.stage("s.levels"), levels, rtol=1e-6)
    page.evaluate(
        """() => {
            window.got = new Set()
            const set = toyguide.set.bind(toyguide)
            toyguide.set = (name, value) => { got.add(name); set(name, value) }
        }"""
    )

    def check(step):
        """Panel B has this level; panel A's run, of other levels, is between two of its own, by log sigma."""
        for panel, run in enumerate(runs):
            drawn = explorer.stage(
                f"Array.from({{length: 128}}, (_, i) => s.panels[{panel}].place(i, s.panels[{panel}].position()))"
            )
            x = np.reshape(run["x"], (-1, 128)).astype(float)
            own = np.array(run["sigma"])
            if levels[step] == 0:
                expected = x[-1]
            else:
                k = max(i for i in range(len(own)) if own[i] >= levels[step] * (1 - 1e-9))
                share = (
                    np.log(own[k] / levels[step]) / np.log(own[k] / own[k + 1])
                    if own[k + 1] > 0
                    else 1 - levels[step] / own[k]
                )
                expected = (1 - share) * x[k] + share * x[min(k + 1, len(own) - 1)]
            np.testing.assert_allclose([u for u, _ in drawn], expected, rtol=1e-4, atol=1e-5)

    handle = page.get_by_role("slider", name="Noise level")
    handle.focus()
    for key, step in {"Home": 0, "ArrowRight": 1, "PageUp": 6, "End": 12, "ArrowLeft": 11}.items():
        handle.press(key)
        explorer.wait("(step) => toyguide.time === step", step)
        said = f"σ = {float(f'{levels[step]:.3g}'):g}, step {step} of 12"
        explorer.wait("(said) => toyguide.line.handle.getAttribute('aria-valuetext') === said", said)
        check(step)
    explorer.idle()
    assert set(page.evaluate("() => [...got]")) <= {"board", "status", "address"}
    explorer.press("One step on")
    explorer.wait("() => toyguide.time === 12")

    page.get_by_label("Background", exact=True).select_option("exact")
    explorer.idle()
    page.evaluate("() => got.clear()")
    for _ in range(6):
        handle.press("ArrowLeft")
        page.wait_for_timeout(60)
    explorer.wait("() => toyguide.sceneAt(1).step === 6 && toyguide.sceneAt(1).image")
    explorer.idle()
    assert "scene_1" in page.evaluate("() => [...got]")
    assert set(page.evaluate("() => [...got]")) <= {"board", "status", "address", "legend", "scene_1"}
    explorer.wait("() => [4, 5, 7, 8].every((step) => toyguide.scenes.get(1).steps.has(step))")


def test_layers_backgrounds_and_sources_are_switched(explorer, address):
    explorer.open(address, f"?{PAIR}&step=5&rule=sfg&bands=none&layers=region&following=false").idle()
    page = explorer.page
    groups = {text: key for key, text in LAYERS.items()}
    for text, key in groups.items():
        switch = explorer.layer(text)
        on = key == "region"
        before = explorer.pixels(2)
        for now in (not on, on):
            switch.click()
            explorer.wait("([key, on]) => toyguide.shows(key) === on", [key, now])
            explorer.idle()
            if key == "critical" and now:
                explorer.wait("() => toyguide.sceneAt(1).critical?.modes.x.length")  # after a search
                explorer.rest()
            assert (explorer.pixels(2) != before).any() == (now != on), key
    page.get_by_label("Background", exact=True).select_option("exact")
    explorer.wait("() => toyguide.sceneAt(1).bands === 'exact' && toyguide.sceneAt(1).image")
    for key in ("guide", "ratio"):
        before = explorer.stage("Array.from(s.sceneAt(1).image).join('')")
        page.get_by_label("Background", exact=True).select_option(key)
        explorer.wait("(before) => Array.from(toyguide.sceneAt(1).image).join('') !== before", before)
    explorer.layer("Score").click()
    explorer.wait("() => toyguide.sceneAt(1).score?.x0.length")
    before = explorer.stage("s.sceneAt(1).score.x1[5]")
    page.get_by_label("taken from").select_option("exact")
    explorer.wait("(before) => toyguide.sceneAt(1).score.x1[5] !== before", before)


def test_hover_and_click_show_one_sample_in_every_panel(explorer, address):
    explorer.open(address, f"?{PAIR}&bands=none&layers=samples&rule=cfg&panels=3").idle()
    page = explorer.page
    run = explorer.run(1)
    x = np.stack([run["x"][-128:], run["y"][-128:]], -1)
    apart = np.linalg.norm(x[:, None] - x[None], axis=-1) + 1e9 * np.eye(128)
    sample = int(apart.min(-1).argmax())
    before = [explorer.pixels(i) for i in (1, 2, 3)]
    page.mouse.move(*explorer.place(1, sample))
    explorer.wait("(sample) => toyguide.hovered === sample", sample)
    explorer.rest()
    said = page.locator(".tip:visible").inner_text()
    assert f"sample {sample} at ({x[sample][0]:.3f}, {x[sample][1]:.3f})" in said
    density = tg.load_dataset("two-gaussians").field().log_density(torch.tensor(x[sample]), 0.0)
    assert float(re.search(r"log-density at the end (-?[\d.]+)", said)[1]) == pytest.approx(float(density), abs=0.011)
    for i in (1, 2, 3):  # a ring around it, and nothing else
        rows, columns = np.nonzero((explorer.pixels(i) != before[i - 1]).any(-1))
        at = explorer.stage(f"s.panels[{i - 1}].place({sample}, 12)")
        frame = explorer.stage(f"[s.panels[{i - 1}].frame.x({at[0]}), s.panels[{i - 1}].frame.y({at[1]})]")
        assert np.abs(np.stack([columns, rows], -1) - frame).max() < 10
    page.mouse.click(*explorer.place(1, sample))
    explorer.wait("(sample) => toyguide.sample === sample", sample)
    explorer.idle()
    way = explorer.stage("s.look().way")
    wanted = np.array([int(way[i : i + 2], 16) for i in (1, 3, 5)])
    for i in (1, 2, 3):  # the whole path is lit, in each by the same index
        own, drawn = explorer.run(i), explorer.pixels(i)
        lit = 0
        for k in range(8, 13):
            at = [own[c][k * 128 + sample] for c in "xy"]
            column, row = np.floor(
                explorer.stage(f"[s.panels[{i - 1}].frame.x({at[0]}), s.panels[{i - 1}].frame.y({at[1]})]")
            ).astype(int)
            if 0 <= row < len(drawn) and 0 <= column < len(drawn):
                lit += bool(
                    np.abs(drawn[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2] - wanted).max(-1).min()
                    < 70
                )
        assert lit >= 3
    page.wait_for_url(re.compile(f"sample={sample}"), timeout=90_000)
    page.keyboard.press("Escape")
    explorer.wait("() => toyguide.sample === null")
    page.wait_for_url(re.compile("^((?!sample=).)*$"), timeout=90_000)


def test_four_panels_of_one_noise_are_copied_swapped_removed_and_zoomed_together(explorer, address):
    explorer.open(address, f"?{QUICK}&bands=none&panels=3&ref:steps=6&rule=cfg&rule3=score-scaling").idle()
    page = explorer.page
    titles = [explorer.title(i).split("  ")[0] for i in (1, 2, 3)]
    page.mouse.move(*explorer.at(2, 0, 0))  # the tools of small panels come with the mouse
    explorer.press("Copy panel B")
    explorer.wait("() => toyguide.panels.length === 4 && toyguide.panels.every((panel) => panel.run)")
    explorer.idle()
    runs = [explorer.run(i) for i in (1, 2, 3, 4)]
    assert all(run["x"][:128] == runs[0]["x"][:128] and run["y"][:128] == runs[0]["y"][:128] for run in runs)
    assert runs[1]["x"] == runs[2]["x"] != runs[3]["x"]
    assert explorer.stage("s.boarded.selected") == 2  # the copy
    page.mouse.move(*explorer.at(1, 0, 0))
    explorer.press("Swap panel A with the next")
    explorer.titled(2, titles[0])
    explorer.idle()
    assert [explorer.title(i).split("  ")[0] for i in (1, 2, 3, 4)] == [titles[1], titles[0], titles[1], titles[2]]
    assert explorer.run(2)["x"] == runs[0]["x"]
    page.mouse.move(*explorer.at(4, 0, 0))
    explorer.press("Remove panel D")
    explorer.wait("() => toyguide.panels.length === 3")
    explorer.idle()

    page.mouse.move(*explorer.at(3, 0.5, 0.5))
    page.mouse.wheel(0, -300)
    page.get_by_text("Hold Ctrl to zoom with the wheel").wait_for()
    wide = explorer.stage("s.window()")
    page.keyboard.down("Control")
    page.mouse.wheel(0, -300)
    page.keyboard.up("Control")
    explorer.idle()
    left, _, right, _ = explorer.stage("s.window()")
    assert right - left < 0.7 * (wide[2] - wide[0])
    assert (0.5 - left) / (right - left) == pytest.approx((0.5 - wide[0]) / (wide[2] - wide[0]), abs=0.02)
    assert len({str(explorer.stage(f"s.panels[{i}].frame.window")) for i in range(3)}) == 1
    page.mouse.move(*explorer.at(1, 0.5, 0.5))
    page.mouse.down()
    page.mouse.move(*explorer.at(1, 0.4, 0.5), steps=4)
    page.mouse.up()
    explorer.idle()
    assert explorer.stage("s.window()[0]") == pytest.approx(left + 0.1, abs=0.02)
    page.wait_for_url(re.compile("window="), timeout=90_000)


def test_the_guidance_interval_has_handles(explorer, address):
    explorer.open(address, f"?{QUICK}&bands=none&rule=cfg&limited=true&interval=0.1,2").idle()
    page = explorer.page
    low, high = (
        page.get_by_role("slider", name=f"{which} end of the guidance interval") for which in ("Lower", "Upper")
    )
    assert [float(end.get_attribute("aria-valuenow")) for end in (low, high)] == [0.1, 2]
    ends, left = explorer.ends(2), explorer.ends(1)
    box = low.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x - 60, y, steps=5)
    page.mouse.up()
    explorer.changed(2, ends)
    explorer.idle()
    now = float(low.get_attribute("aria-valuenow"))
    assert 0.1 < now < 2
    assert explorer.run(2)["n"] == 128
    page.wait_for_url(re.compile(f"interval={now:g},2"), timeout=90_000)
    pushes = dict(zip(explorer.run(2)["sigma"], explorer.run(2)["push"], strict=False))
    assert all((push > 0) == (now <= sigma <= 2) for sigma, push in pushes.items())
    ends = explorer.ends(2)
    high.focus()
    for _ in range(8):
        high.press("ArrowLeft")
    explorer.changed(2, ends)
    explorer.idle()
    assert float(high.get_attribute("aria-valuenow")) == pytest.approx(2 * 1.1**8, rel=0.02)
    assert explorer.ends(1) == left


def test_everything_can_be_done_by_keyboard(explorer, address):
    explorer.open(address, f"?{QUICK}&bands=none").idle()
    page = explorer.page
    seen = []
    for _ in range(90):
        page.keyboard.press("Tab")
        seen.append(
            page.evaluate(
                """() => {
                    let at = document.activeElement
                    while (at.shadowRoot?.activeElement) at = at.shadowRoot.activeElement
                    const style = getComputedStyle(at)
                    const seen = style.outlineStyle !== 'none' || !toyguide.element.contains(at)
                    return [at.getAttribute('aria-label') ?? at.textContent.trim(), seen]
                }"""
            )
        )
    names = [name for name, _ in seen]
    for wanted in (
        "Panel A",
        "Panel B",
        "Replay",
        "One step back",
        "Noise level",
        "Speed",
        "Layers",
        "Background",
        "All numbers",
    ):
        assert any(name.startswith(wanted) for name in names), wanted
    assert all(visible for _, visible in seen), [name for name, visible in seen if not visible]

    canvas = page.locator("canvas[role=application]").nth(1)
    canvas.focus()
    home = explorer.stage("s.window()")
    for key, shrinks in (("+", True), ("-", False), ("ArrowLeft", None), ("0", None)):
        before = explorer.stage("s.window()")
        canvas.press(key)
        after = explorer.stage("s.window()")
        if shrinks is not None:
            assert (after[2] - after[0] < before[2] - before[0]) == shrinks
        elif key == "ArrowLeft":
            assert after[0] < before[0]
    assert explorer.stage("s.window()") == home
    canvas.press("Enter")
    page.get_by_label("First coordinate").wait_for(timeout=90_000)
    canvas.press("?")
    page.get_by_role("dialog", name="Keyboard shortcuts").wait_for()
    page.keyboard.press("Escape")
    page.get_by_role("dialog", name="Keyboard shortcuts").wait_for(state="hidden")
    canvas.press("Escape")
    page.get_by_label("First coordinate").wait_for(state="hidden", timeout=90_000)
    canvas.press(",")
    canvas.press(",")
    explorer.wait("() => toyguide.time === 10")
    canvas.press(".")
    explorer.wait("() => toyguide.time === 11")
    canvas.press("1")
    explorer.wait("() => toyguide.boarded.selected === 0")
    page.get_by_role("button", name="Rule Unguided").wait_for()
    canvas.press(" ")
    explorer.wait("() => toyguide.playing")
    canvas.press(" ")
    explorer.wait("() => !toyguide.playing")


def test_presets_of_every_kind_can_be_chosen_one_after_another(explorer, address):
    """One for each dataset and number of panels; that all are valid and true is tested without a browser."""
    explorer.open(address, f"?{QUICK}").idle()
    kinds = {}
    for preset in presets().values():
        state = ExplorerState()
        state.apply(preset.key)
        kinds.setdefault((state.dataset, len(state.panels)), preset)
    assert {count for _, count in kinds} >= {2, 4}
    for preset in kinds.values():
        explorer.choose("Preset", preset.title)
        explorer.page.get_by_role("heading", name=preset.title).wait_for(timeout=90_000)
        assert preset.look in explorer.page.locator(".headline").inner_text()
        shown = explorer.stage("s.boarded.panels.map((panel) => panel.title)")
        state = ExplorerState()
        state.apply(preset.key)
        assert [title.split("  ·")[0] for title in shown] == [named(run) for run in state.request().runs]
        assert explorer.stage("s.panels.every((panel) => panel.run.n > 0)")


def test_a_url_restores_a_picture_wrong_values_are_told_once_and_bad_messages_refused(explorer, address):
    query = f"?{QUICK}&rule=sfg&w=9&ref=cfg&ref.w=2&seed=5&label=Q&h=huge&colour=red"
    explorer.open(address, query)
    page = explorer.page
    told = page.get_by_text(re.compile("settings of this link were left out"))
    told.wait_for(timeout=90_000)
    assert told.count() == 1
    for part in ("'Q'", "'huge'", "'colour'"):
        assert part in told.inner_text()
    explorer.idle()
    assert "w = 9" in explorer.title(2)
    assert "w = 2" in explorer.title(1)
    points = explorer.ends(2)
    # A value no slider offers, sent as the slider's own; and what the stage never says.
    page.evaluate(
        """() => { for (const m of Bokeh.documents[0].all_models)
                     if (m.data?.value === 9) { m.data.value = 1e9; return } throw Error('no slider') }"""
    )
    page.get_by_text(re.compile("expected a number from")).first.wait_for(timeout=90_000)
    page.evaluate("() => toyguide.send({ kind: 'step', value: 'x'.repeat(1e5) })")
    page.get_by_text(re.compile("step = 'x+")).first.wait_for(timeout=90_000)
    assert explorer.ends(2) == points
    explorer.choose_rule("score-scaling")
    explorer.changed(2, points)
    page.wait_for_url(re.compile("rule=score-scaling"), timeout=90_000)
    points = explorer.ends(2)
    link = page.url
    page.goto("about:blank")  # the visitor leaves, and comes back by the link
    page.wait_for_timeout(500)
    explorer.open(link).idle()
    assert explorer.ends(2) == points


def test_a_click_opens_the_inspector_with_the_exact_numbers_and_the_errors_open_beside_it(explorer, address):
    scene = "step=6&rule=autoguidance&weak=exact%2Bnoise:0.2&bands=error-ratio&layers=region"
    explorer.open(address, f"?{PAIR}&{scene}").idle()
    page = explorer.page
    page.get_by_text("Length of the guided error").wait_for()
    plots = explorer.stage("s.panels.map((panel) => panel.side)")
    page.mouse.click(*explorer.at(2, 0.1, 0.3))
    explorer.wait("() => toyguide.marks.panels?.[1].way.x.length > 1")
    explorer.idle()
    assert explorer.stage("s.panels.map((panel) => panel.side)") == plots  # nothing is pushed around
    assert explorer.stage("s.point") == pytest.approx((0.1, 0.3), abs=0.02)  # to a pixel
    page.get_by_label("Second coordinate").click()
    page.wait_for_timeout(300)  # the box takes its text over when it has the focus
    page.keyboard.press("Control+A")
    page.keyboard.type("0.25")
    page.keyboard.press("Enter")
    explorer.wait("() => Math.abs(toyguide.point[1] - 0.25) < 1e-6")
    explorer.idle()

    data = tg.load_dataset("two-gaussians")
    sigma = float(tg.Experiment(dataset="two-gaussians", steps=12).levels()[6])
    u = float(page.get_by_label("First coordinate").input_value())
    x = torch.tensor([u, 0.25], dtype=torch.float64)
    score = data.field().score(x, sigma)
    top = sigma**2 * torch.linalg.eigvalsh(data.field().hessian(x, sigma))[-1]
    said = " ".join(page.locator("table").all_inner_texts())
    for number in (f"({score[0]:.3g}, {score[1]:.3g})", f"{top:+.3f}", f"{data.posterior(x, sigma)[1]:.3f}"):
        assert number in said, number
    page.wait_for_url(re.compile("point="), timeout=90_000)

    explorer.press("Errors over σ")
    explorer.wait("() => Bokeh.documents[0].get_model_by_name('errors-2').data.sigma.length > 0")
    shortened = page.evaluate("() => Array.from(Bokeh.documents[0].get_model_by_name('errors-2').data.shortened)")
    assert max(shortened) <= 1
    page.wait_for_url(re.compile("errors=true"), timeout=90_000)
    way = explorer.stage("Array.from(s.marks.panels[1].way.x)")
    page.locator("input[type=range]").first.press("ArrowRight")  # w: the inspector follows
    explorer.wait("(way) => toyguide.marks.panels[1].way.x.some((x, i) => x !== way[i])", way)
    page.keyboard.press("Escape")
    explorer.wait("() => toyguide.point === null && !toyguide.marks.panels.length")
    page.get_by_label("Second coordinate").wait_for(state="hidden", timeout=90_000)
    explorer.press("Errors over σ")
    page.wait_for_url(re.compile("^((?!errors=).)*$"), timeout=90_000)


def choose(explorer, box, name):
    box.click()
    explorer.page.keyboard.press("Control+A")
    explorer.page.keyboard.type(name)
    explorer.page.wait_for_timeout(300)
    explorer.page.keyboard.press("Enter")


def test_another_plane_in_sixteen_dimensions_and_an_edge(explorer, address):
    explorer.open(address, f"?dataset=simplex16&main=exact&step=6&bands=none&layers=critical&{QUICK}").idle()
    ends = explorer.ends(2)
    box = explorer.page.get_by_role("combobox", name="left")
    choose(explorer, box, "v9")
    explorer.changed(2, ends)
    three = "() => toyguide.sceneAt(1).step === 6 && toyguide.sceneAt(1).critical.modes.x.length === 3"
    explorer.wait(three)
    anchors = ("v9", "v2", "v3")
    assert explorer.stage("s.home") == pytest.approx(home_window("simplex16", anchors))
    data = tg.load_dataset("simplex16")
    corner = plane("simplex16", anchors).project(data.field("v9").mean)
    modes = explorer.stage("Array.from(s.sceneAt(1).critical.modes.x)")
    assert min(modes) == pytest.approx(float(corner[0]), abs=0.1)

    explorer.press("The edge between two classes")
    explorer.wait("() => Bokeh.documents[0].get_model_by_name('profile-curvature').data.t.length > 0")
    t, top = (
        explorer.page.evaluate(f"() => Array.from(Bokeh.documents[0].get_model_by_name('profile-curvature').data.{c})")
        for c in ("t", "exact")
    )
    assert t[top.index(max(top))] == pytest.approx(0.5)
    explorer.page.wait_for_url(re.compile("plane=v9,v2,v3.*profile=true"), timeout=90_000)
    choose(explorer, box, "nowhere")
    explorer.page.get_by_text(re.compile("'nowhere'")).first.wait_for(timeout=90_000)
    explorer.wait(three)
    assert box.input_value() == "v9"
