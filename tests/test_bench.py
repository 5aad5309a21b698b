"""The benchmark: its clockwork under a false clock, its reference against the library, and what it writes.

Nothing here depends on how long anything takes.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import platform
import re
import sys
import types
from dataclasses import asdict
from functools import partial
from importlib.machinery import ModuleSpec

import pytest
import torch

import toyguide as tg
from toyguide._speed import compiled
from toyguide.bench import cases, growth, memory, multiples, report, run, textbook, timing, typed
from toyguide.bench.cases import Aim, Case
from toyguide.bench.growth import Series
from toyguide.bench.machine import describe
from toyguide.bench.run import Figure, Row
from toyguide.bench.timing import Spread
from toyguide.cli import main
from toyguide.fields.networks import EnergyMLP
from toyguide.samplers import sampler, trajectory
from toyguide.training import TrainSettings, batch_loss, draw_batch, ema_exponent

CPU = torch.device("cpu")


class Clock:
    """A clock that only the functions made by ``taking`` move on."""

    def __init__(self):
        self.now, self.calls = 0.0, []

    def __call__(self):
        return self.now

    def taking(self, seconds, name=""):
        """A function that takes so long; ``seconds`` may depend on the time."""

        def function():
            self.calls.append(name)
            self.now += seconds(self.now) if callable(seconds) else seconds

        return function


# Timing


def test_functions_take_turns_after_a_warm_up():
    clock = Clock()
    slow, fast = timing.alternate([clock.taking(2.0, "A"), clock.taking(0.0625, "B")], clock)
    # A turn lasts at least 0.1 s, two calls of B, and turns go on until 8 s are over.
    assert "".join(clock.calls) == "ABB" * (1 + 4)
    assert slow == [2.0] * 4
    assert fast == [0.0625] * 4


def test_long_functions_have_three_turns_and_short_ones_fifteen():
    clock = Clock()
    assert len(timing.alternate([clock.taking(100.0)], clock)[0]) == 3
    assert len(timing.alternate([clock.taking(0.001)], clock)[0]) == 15


def test_the_first_calls_do_not_count():
    clock = Clock()
    turns = timing.alternate([clock.taking(lambda now: 60.0 if now == 0 else 1.0)], clock)
    assert max(turns[0]) == 1.0


def test_a_machine_that_slows_down_does_not_change_the_ratio():
    clock = Clock()

    def slowing(seconds):
        return lambda now: seconds * (1 if now < 5 else 3)

    slow, fast = timing.alternate([clock.taking(slowing(1.0)), clock.taking(slowing(0.25))], clock)
    assert max(slow) / min(slow) == pytest.approx(3)
    ratio = timing.pairwise_ratio(slow, fast)
    assert ratio.median == pytest.approx(4)
    # Only the turn in which it happened is off.
    assert sum(s / f != pytest.approx(4) for s, f in zip(slow, fast, strict=True)) <= 1


def test_a_spread_is_the_median_and_the_ends():
    assert Spread.of([3.0, 1.0, 2.0, 10.0]) == Spread(2.5, 1.0, 10.0)
    assert timing.pairwise_ratio([2.0, 9.0, 8.0], [1.0, 3.0, 2.0]) == Spread(3.0, 2.0, 4.0)


# The textbook, in float64, against the library


@pytest.mark.parametrize("dim", [1, 2, 5])
def test_textbook_mixture(random_mixture, dim):
    field = random_mixture(dim)
    g = torch.Generator().manual_seed(0)
    sigma = torch.exp(torch.randn(40, generator=g, dtype=torch.float64))
    x = field.sample(40, generator=g) + sigma[:, None] * torch.randn(40, dim, generator=g, dtype=torch.float64)
    reference = textbook.Mixture(field, x)
    torch.testing.assert_close(reference.log_density(x, sigma), field.log_density(x, sigma), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(reference.score(x, sigma), field.score(x, sigma), rtol=1e-9, atol=1e-9)


def test_textbook_mixture_draws_from_the_mixture(random_mixture):
    """20,000 points: the means of the log-density and of its square, to four standard errors."""
    field = random_mixture(2)
    own = textbook.Mixture(field, torch.empty(0, dtype=torch.float64)).sample(20_000, torch.Generator().manual_seed(0))
    theirs = field.sample(20_000, generator=torch.Generator().manual_seed(1))
    for power in (1, 2):
        a, b = (field.log_density(x, 0.0) ** power for x in (own, theirs))
        assert abs(a.mean() - b.mean()) < 4 * (a.var() / len(a) + b.var() / len(b)).sqrt()


def test_textbook_network():
    network = tg.load_model("fractal/main").double()
    g = torch.Generator().manual_seed(0)
    x = torch.randn(30, 2, generator=g, dtype=torch.float64)
    sigma = torch.exp(torch.randn(30, generator=g, dtype=torch.float64) - 1)
    reference = textbook.Network(network)
    for name in ("log_density", "score", "hessian"):
        expected = getattr(network, name)(x, sigma)
        torch.testing.assert_close(getattr(reference, name)(x, sigma), expected, rtol=1e-9, atol=1e-9, msg=name)


def test_textbook_sampling():
    data = tg.load_dataset("two-gaussians")
    e = tg.Experiment(dataset="two-gaussians", label="left", main="exact", rule="cfg", params={"w": 2.5}, n=20, steps=6)
    x, levels = e.start().double(), e.levels()
    steps = list(trajectory(e.build_rule(), e.build_fields(), sampler("heun"), x, levels, torch.Generator()))
    main, union = (textbook.Mixture(data.field(label), x) for label in ("left", None))
    end = textbook.sample_guided(main, union, 2.5, x, levels)
    torch.testing.assert_close(end, steps[-1].x, rtol=1e-9, atol=1e-9)
    assert not torch.allclose(textbook.sample_guided(main, union, 1.0, x, levels), end)


def test_textbook_training():
    """Four steps on the same points lead to the same weights as the library's loss with PyTorch's Adam."""
    settings = TrainSettings(label="A", width=8, layers=2, batch=64)
    data = settings.data
    network = EnergyMLP(2, 8, 2, data.sigma_data, generator=torch.Generator().manual_seed(1))
    g = torch.Generator().manual_seed(0)
    batches = [draw_batch(settings, network, g) for _ in range(4)]
    batches = [
        dataclasses.replace(b, **{f.name: getattr(b, f.name).double() for f in dataclasses.fields(b)}) for b in batches
    ]
    batches = [dataclasses.replace(b, target=data.field("A").score(b.x, b.sigma)) for b in batches]
    network = network.double()
    reference = textbook.Network(network, trainable=True)
    exact = textbook.Mixture(data.field("A"), batches[0].x)
    steps = textbook.train(reference, iter([(b.x, b.sigma) for b in batches]), exact, 0.01, ema_exponent(0.01))

    optimizer = torch.optim.Adam(network.parameters(), betas=(0.9, 0.99), lr=0.01)
    for b, loss in zip(batches, steps, strict=True):
        expected = batch_loss(network, b)
        optimizer.zero_grad()
        expected.backward()
        optimizer.step()
        network.normalize()
        torch.testing.assert_close(loss, expected.detach(), rtol=1e-8, atol=0)
    for ours, theirs in zip([*network.weights, network.gain], reference.parameters, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-9)
    assert reference.gain != 0


# What is measured


@pytest.mark.parametrize(
    "make",
    [
        partial(cases.exact_score, n=64),
        partial(cases.exact_score_without_compiler, n=64),
        partial(cases.log_density, sigma=0.1, side=24, part=1),
        partial(cases.log_density, sigma=0.002, side=24, part=1),
        partial(cases.guided, n=32, steps=4),
        cases.network_score,
        cases.network_hessian,
    ],
    ids=lambda make: run._named(make),
)
def test_both_functions_of_a_case_do_the_same(make, torch_device):
    """To float32's rounding, relative to the largest value; sampling magnifies it a thousandfold where paths part."""
    case = make(torch_device)
    ours, theirs = case.toyguide(), case.textbook()
    theirs = theirs.reshape(ours.shape)
    assert case.share == 1
    assert (ours - theirs).abs().max() < 1e-3 * theirs.abs().max()


def test_derivatives_are_what_is_timed(monkeypatch):
    """Each function against differentiation of the score; a ratio is that of turns side by side."""
    seen = []

    def alternate(functions):
        score, hessian, product, gradient = (function() for function in functions)
        x, sigma = functions[0].args
        jacobian = torch.func.vmap(torch.func.jacrev(functions[0].func.__self__.score), (0, None))(x[:9], 0.1)
        torch.testing.assert_close(hessian[:9], jacobian, rtol=1e-3, atol=1e-3 * float(jacobian.abs().max()))
        torch.testing.assert_close(product[:9], (jacobian @ x[:9, :, None])[..., 0], rtol=1e-2, atol=2.0)
        torch.testing.assert_close(gradient, score, rtol=1e-4, atol=1e-4 * float(score.abs().max()))
        seen.append((x.shape[1], isinstance(sigma, float), compiled._local.without))
        return [[1.0, 2.0, 4.0], [3.0, 4.0, 4.0], [2.0, 4.0, 8.0], [1.0, 2.0, 4.0]]

    monkeypatch.setattr(multiples, "alternate", alternate)
    found = multiples.multiples(CPU, lambda function: function)
    assert seen == [(d, shared, without) for d in (2, 16) for without in (False, True) for shared in (True, False)]
    assert [(r.median, aim.at_most) for _, r, aim in found[:3]] == [(2.0, 8.0), (2.0, 4.0), (1.0, 4.0)]
    assert found[12][2].at_most == 32.0
    assert len({name for name, _, _ in found}) == 24


def test_a_typed_rule_is_timed_beside_the_one_that_it_equals(monkeypatch):
    def alternate(functions):
        formula, built_in = (function() for function in functions)
        torch.testing.assert_close(formula, built_in, rtol=1e-5, atol=1e-5)
        return [[2.0, 3.0, 4.0], [2.0, 2.0, 2.0]]

    monkeypatch.setattr(typed, "alternate", alternate)
    found = typed.typed(CPU, lambda function: function)
    assert [(r.median, aim.at_most) for _, r, aim in found] == [(1.5, 1.3)] * 2
    assert len({name for name, _, _ in found}) == 2


def test_a_training_never_runs_out_while_it_is_timed(monkeypatch):
    """A quick machine takes more steps in its turns than the network's own training has."""
    trained = []
    monkeypatch.setattr(cases, "train", lambda settings, device: iter(trained.append(settings) or [settings]))
    cases.training_step(CPU)
    assert trained[0].iterations > 10**6
    assert dataclasses.replace(trained[0], iterations=4096) == cases._TRAINING


def test_a_part_of_the_work_is_that_share_of_it():
    case = cases.log_density(CPU, sigma=0.1, side=24, part=16)
    whole, part = case.toyguide().flatten(), case.textbook()
    assert case.share == len(part) / len(whole) == 1 / 16
    assert torch.allclose(whole[::16], part, rtol=1e-3, atol=1e-3)
    assert f"textbook: {len(part)} of the points" in case.name

    case = cases.guided(CPU, n=32, part=4, steps=2)
    assert case.share == len(case.textbook()) / len(case.toyguide()) == 1 / 4


def test_both_trainings_learn_the_same_task(torch_device):
    """The losses of the first step, at the same untrained network (gain 0), of 4096 points each: to four standard
    errors, from the spread of the library's own first losses over seeds."""
    own = torch.stack([next(tg_train(seed, torch_device)).loss.cpu() for seed in range(1, 5)])
    theirs = cases.training_step(torch_device).textbook().cpu()
    assert abs(own.mean() - theirs) < 4 * own.std() * (1 + 1 / 4) ** 0.5


def tg_train(seed, device):
    return cases.train(dataclasses.replace(cases._TRAINING, seed=seed), device.type)


def test_a_sweep_ends_with_its_last_weight(torch_device):
    case = cases.sweep(torch_device, weights=3, n=16)
    e = tg.Experiment(label="A", rule="cfg", params={"w": 1.2}, n=16)
    torch.testing.assert_close(case.toyguide().cpu(), e.run(torch_device.type).x[-1], rtol=1e-4, atol=1e-4)
    assert case.share == 1 / 3


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_call_returns_when_the_gpu_is_done():
    device = torch.device("cuda")
    a = torch.randn(8192, 8192, device=device)
    done = torch.cuda.Event()

    def work():
        for _ in range(20):
            a @ a
        done.record()

    run._completed(device, work)()
    assert done.query()


def test_rows_are_of_the_whole_work_and_know_their_aim():
    case = Case("something", lambda: None, lambda: None, share=0.25)
    turns = [[1.0, 2.0, 4.0], [0.5, 1.0, 1.0]]
    row = Row.of(case, turns, Aim(ratio=8))
    assert (row.seconds, row.textbook) == ([0.5, 1.0, 1.0], [4.0, 8.0, 16.0])
    assert row.ratio == Spread(8.0, 8.0, 16.0)
    assert row.met
    assert not Row.of(case, turns, Aim(ratio=8.1)).met
    assert Row.of(case, turns, Aim(ratio=8, at_most=1.0)).met
    assert not Row.of(case, turns, Aim(ratio=8, at_most=0.9)).met
    assert Row.of(case, turns, None).met is None

    alone = Row.of(dataclasses.replace(case, textbook=None), turns[1:], Aim(at_most=1.0))
    assert (alone.textbook, alone.ratio, alone.met) == (None, None, True)


# Growth


def test_the_slope_is_the_power_of_the_upper_half():
    sizes = [1, 10, 100, 1000, 10_000]
    assert growth.slope(sizes, [5 * n**1.5 for n in sizes]) == pytest.approx(1.5)
    # A constant that the small ones pay does not count.
    assert growth.slope(sizes, [7.0, 7.0, 2.0, 20.0, 200.0]) == pytest.approx(1)


def test_costs_are_of_an_undisturbed_call():
    clock = Clock()
    assert growth._cost(clock.taking(60.0), clock) == 60.0
    assert len(clock.calls) == 1, "a long call is not repeated"

    clock = Clock()
    assert growth._cost(clock.taking(lambda now: 2.0 if now < 1 else 0.5), clock) == 0.5


@pytest.mark.parametrize(
    ("grow", "sizes"), [(growth.by_components, (3, 40)), (growth.by_points, (5, 60)), (growth.by_dimension, (1, 4))]
)
def test_what_grows_is_what_is_said(monkeypatch, grow, sizes):
    """The functions that would be timed are called, and what they return is of the size."""
    seen = []
    monkeypatch.setattr(growth, "_cost", lambda function: seen.append(function()) or 1.0)
    monkeypatch.setattr(
        growth, "_points", lambda f, n, d, points=growth._points: (seen.append((len(f), n, f.dim)), points(f, n, d))[1]
    )
    score, density = grow(CPU, lambda function: function, sizes)
    inputs, results = seen[: len(sizes)], seen[len(sizes) :]
    column = {"components": 0, "points": 1, "dimensions": 2}[score.by]
    assert tuple(i[column] for i in inputs) == sizes == tuple(density.sizes)
    assert [len({i[c] for i in inputs}) for c in range(3) if c != column] == [1, 1]
    assert [tuple(r.shape) for r in results] == [i[1:] for i in inputs] + [i[1:2] for i in inputs]


def test_memory_counts_what_a_process_of_its_own_takes():
    """The points alone are drawn as float64 with their ellipse's axes: 48 bytes each."""
    n = 50_000
    ballast = torch.ones(1 << 27)  # this process is larger than its child will be, which must not count
    assert 48 * n < memory.peak_bytes(CPU, n) < 2**30
    assert len(ballast)


# What is written

TURNS = [[1.0, 1.2, 0.9], [0.010, 0.012, 0.0099]]


def measured(device="cpu", date="2030-01-02"):
    rows = [
        Row.of(Case("exact score", len, len), TURNS, Aim(ratio=70)),
        Row.of(Case("log-density", len, len, share=0.5), TURNS, Aim(ratio=300)),
        Row.of(Case("metrics", len), [[0.0421]], None),
    ]
    figures = [
        Figure.of("import", Spread(1.234, 1.1, 1.5), "s", Aim(at_most=2.5)),
        Figure.of("memory", Spread.of([2048.0]), "MiB", Aim(at_most=1024.0)),
    ]
    series = [
        Series.of("score", "components", "2 points", [100, 1000, 10_000], [0.1, 1.0, 10.0]),
        Series.of("denoise", "components", "2 points", [100, 1000, 10_000], [0.1, 0.4, 1.6]),
        Series.of("sampling", "steps", "3 points", [8, 16], [0.001, 0.002]),
    ]
    machine = {**describe(CPU), "device": device, "date": date, "gpu": "H200" if device == "cuda" else None}
    lists = {"rows": rows, "figures": figures, "growth": series}
    return {"machine": machine, "remarks": ["One thing was not measured."]} | {
        name: [asdict(x) for x in values] for name, values in lists.items()
    }


def cells(markdown, start):
    (line,) = (line for line in markdown.splitlines() if line.startswith(f"| {start} |"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_markdown_says_what_was_measured():
    text = report.as_markdown(measured())
    assert cells(text, "exact score")[1:] == [
        "1 s (900 ms … 1.2 s)",
        "10 ms (9.9 ms … 12 ms)",
        "100× (90.9 … 100)",
        "70×",
        "met",
    ]
    assert cells(text, "log-density")[1:2] + cells(text, "log-density")[3:] == [
        "2 s (1.8 s … 2.4 s)",
        "200× (182 … 200)",
        "300×",
        "not met",
    ]
    assert cells(text, "metrics")[1:] == ["–", "42.1 ms", "–", "–", ""]
    assert cells(text, "import")[1:] == ["1.23 s (1.1 s … 1.5 s)", "≤ 2.5 s", "met"]
    assert cells(text, "memory")[1:] == ["2,048 MiB", "≤ 1,024 MiB", "not met"]
    assert cells(text, "score")[1:] == ["components", "2 points", "100: 100 ms", "10,000: 10 s", "1.00"]
    assert "\n\nOne thing was not measured.\n\n" in text
    assert "2030-01-02" in text
    assert torch.__version__ in text


def test_the_terminals_table_is_aligned_and_says_the_same():
    text = report.as_text(measured())
    heading, *rows = text.split("\n\n")[1].splitlines()
    assert [row[heading.index("toyguide") :].split()[0] for row in rows] == ["10", "10", "42.1"]
    assert "200× (182 … 200)" in text


def test_a_run_replaces_its_own_section_only():
    text = "# Benchmarks\n\nTaken by hand.\n"
    for device, date in (("cpu", "2030-01-01"), ("cuda", "2030-02-02")):
        text = report.replace_section(text, report.as_markdown(measured(device, date)))
    after = report.replace_section(text, report.as_markdown(measured("cpu", "2030-03-03")))
    assert "by hand" not in text
    assert after == text.replace("2030-01-01", "2030-03-03") != text
    assert re.findall("^#+ .*", after, re.MULTILINE) == ["# Benchmarks", "## CPU", "## GPU"]
    assert "2030-02-02, H200" in after


def test_the_figure_shows_each_series_and_its_slope():
    pytest.importorskip("matplotlib")
    from toyguide.bench.figure import growth_figure

    series = measured()["growth"]
    figure = growth_figure(series, "here")
    lines = [line for axes in figure.axes for line in axes.get_lines()]
    assert len(figure.axes) == 2
    for s, line in zip(series, lines, strict=True):
        assert list(line.get_xdata()) == s["sizes"]
        assert list(line.get_ydata()) == s["seconds"]
        assert line.get_label() == f"{s['what']}: slope {s['slope']:.2f}"
    assert series[0]["slope"] == pytest.approx(1)
    together = lines[:2]
    assert len({(line.get_marker(), line.get_linestyle()) for line in together}) == 2, "not by colour alone"


def test_the_machine_is_described_without_its_name():
    told = describe(CPU)
    assert told["torch"] == torch.__version__
    assert told["threads"] == torch.get_num_threads()
    assert platform.node() not in json.dumps(told)


EXPLORER = {
    "sessions": 7,
    "changes": 20,
    "one": {"p50": 80.0, "p95": 90.0, "max": 100.0},
    "many": {"p50": 800.0, "p95": 1600.0, "max": 2000.0},
    "errors": 1,
    "stale": 0,
    "first_picture_s": 4.5,
    "browser": {"p50": 110.0, "p95": 240.0, "max": 300.0},
    "browser_first_picture_s": 5.5,
    "browser_answer_ratio": 1.4,
    "browser_load_s": 2.2,
    "browser_load_ratio": 2.6,
    "browser_picture_ms": 33.0,
}


def test_the_explorers_figures_stand_beside_their_aims():
    found = {f.name: (f.value.median, f.unit, f.met) for f in run.explorer_figures(EXPLORER)}
    assert found["explorer in Chromium, key press to drawn picture: median"] == (110.0, "ms", False)
    assert found["explorer in Chromium, key press to drawn picture: 95th percentile"] == (240.0, "ms", True)
    assert found["explorer without a browser, change to picture received: longest"] == (100.0, "ms", None)
    assert found["explorer, 7 visitors who drag at once: 95th percentile"] == (1600.0, "ms", False)
    assert found["explorer: errors"] == (1, "", False)
    assert found["explorer: stale pictures"] == (0, "", True)
    assert found["explorer: start of the server to the first picture received"] == (4.5, "s", True)
    assert found["explorer: the same in Chromium"] == (5.5, "s", False)

    assert found["explorer in Chromium: an answer, less its runs, against a redraw of the stage"] == (1.4, "×", True)
    assert found["explorer in Chromium: address to first picture"] == (2.2, "s", None)
    assert found["explorer in Chromium: the first picture against an empty page"] == (2.6, "×", False)
    assert found["explorer in Chromium: picture to picture, four panels of 2,048 playing"] == (33.0, "ms", True)

    without = run.explorer_figures({k: None if k.startswith("browser") else v for k, v in EXPLORER.items()})
    assert [f.name for f in without] == [name for name in found if "Chromium" not in name]


# The command


@pytest.fixture
def quick(monkeypatch):
    """Measures nothing but a stand-in for the explorer; gives the names of what was measured."""
    jobs = []

    def measure(device, explorer, watch):
        jobs.extend(name for name, _ in watch([("first", None), ("second", None)]))
        found = {k: v for k, v in measured(device.type).items() if k != "remarks"}
        found["figures"] += [asdict(f) for f in (explorer() if explorer else [])]
        return found

    monkeypatch.setattr(run, "measure", measure)
    stand_in = types.ModuleType("toyguide_apps.bench")
    stand_in.__spec__ = ModuleSpec("toyguide_apps.bench", None)
    figures = dataclasses.make_dataclass("ExplorerFigures", EXPLORER)
    stand_in.measure_explorer = lambda: figures(**EXPLORER)
    monkeypatch.setitem(sys.modules, "toyguide_apps.bench", stand_in)
    return jobs


def test_the_command_prints_and_writes(quick, capsys, tmp_path):
    pytest.importorskip("matplotlib")
    assert main(["bench", "--device", "cpu", "--json"]) == 0
    out, err = capsys.readouterr()
    found, expected = json.loads(out), json.loads(json.dumps(measured()))
    added = json.loads(json.dumps([asdict(f) for f in run.explorer_figures(EXPLORER)]))
    assert found == {**expected, "figures": expected["figures"] + added, "remarks": []}
    assert quick == ["first", "second"]
    assert "second" in err

    assert main(["bench", "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(report.as_text({**measured(), "figures": [], "growth": [], "remarks": []})[:400])
    assert re.search("explorer: errors +1 +≤ 0 +not met", out)
    assert list(tmp_path.iterdir()) == []

    assert main(["bench", "--device", "cpu", "-o", str(tmp_path)]) == 0
    text = (tmp_path / "BENCHMARKS.md").read_text()
    assert cells(text, "exact score") == cells(report.as_markdown(measured()), "exact score")
    assert sorted(p.name for p in tmp_path.rglob("*.*")) == ["BENCHMARKS.md", "growth.png", "growth.svg"]
    assert all((tmp_path / linked).stat().st_size > 1000 for linked in re.findall(r"\((docs/\S+)\)", text))


def test_without_panel_the_explorer_is_left_out_with_a_remark(quick, capsys, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "panel" else found(name, *a))
    assert main(["bench", "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    assert "explorer: errors" not in out
    assert out.endswith("The explorer was not measured: it needs pip install 'toyguide[app]'.\n")


def test_an_explorer_that_fails_costs_no_other_figure(quick, capsys, monkeypatch):
    def fail():
        raise RuntimeError("the server\ndid not start")

    monkeypatch.setattr(sys.modules["toyguide_apps.bench"], "measure_explorer", fail)
    assert main(["bench", "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    assert "100× (90.9 … 100)" in out
    assert out.endswith("The explorer was not measured: the server did not start\n")


@pytest.mark.parametrize(
    ("argv", "complaint"),
    [
        (["--device", "gpu"], "unknown --device 'gpu': expected one of auto, cpu, cuda"),
        (["-o", "no/such"], "output 'no/such': expected a folder that exists"),
        (["-o", __file__], "expected a folder that exists"),
    ],
)
def test_wrong_benches_are_refused_before_anything_is_measured(quick, capsys, argv, complaint):
    assert main(["bench", *argv]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n"), quick) == ("", 1, [])
    assert complaint in err


def test_without_matplotlib_nothing_is_written(quick, capsys, monkeypatch, tmp_path):
    monkeypatch.delitem(sys.modules, "toyguide.plots", raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["bench", "--device", "cpu", "-o", str(tmp_path)]) == 2
    assert "figures need matplotlib" in capsys.readouterr().err
    assert (list(tmp_path.iterdir()), quick) == ([], [])


def test_all_jobs_are_done_and_sorted(monkeypatch):
    """Two false cases and growths; every job's results end up in their list."""
    monkeypatch.setitem(run.CASES, "cpu", [(lambda device: Case("nothing", list), None)])
    monkeypatch.setattr(run, "GROWTH", [lambda device, done: [Series.of("a", "b", "c", [1, 2, 3], [1, 2, 3])]])
    monkeypatch.setattr(run, "_import_time", lambda: [Figure.of("import", Spread.of([1.0]), "s")])
    monkeypatch.setattr(run, "multiples", lambda device, done: [("Hessian", Spread.of([4.0]), Aim(at_most=8.0))])
    monkeypatch.setattr(run, "typed", lambda device, done: [("formula", Spread.of([1.1]), Aim(at_most=1.3))])
    monkeypatch.setattr(run, "_memory", lambda device: [Figure.of("memory", Spread.of([2.0]), "MiB")])
    monkeypatch.setattr(run, "alternate", lambda functions: [[3.0] for _ in functions])
    found = run.measure(CPU, lambda: [Figure.of("explorer", Spread.of([9.0]), "ms")])
    assert [row["name"] for row in found["rows"]] == ["nothing"]
    assert [f["name"] for f in found["figures"]] == ["Hessian", "formula", "import", "memory", "explorer"]
    assert found["growth"][0]["slope"] == pytest.approx(1)
    assert json.loads(json.dumps(found)) == found
