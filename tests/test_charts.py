"""Sheets: what is drawn is what the sheet holds, and all of it can be seen."""

import math

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.axis import Tick
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.text import Text

from toyguide import load_dataset
from toyguide.metrics import hdr_threshold
from toyguide.palette import LIGHT
from toyguide.studies.charts import Chart, Cloud, Map, Mark, Series, Sheet, Strokes, series
from toyguide.studies.rows import Interval

plots = pytest.importorskip("toyguide.plots")
parts = pytest.importorskip("toyguide.plots.parts")

nan = math.nan
PLACES = ["nowhere", "above", "in the middle", "below", "everywhere"]


pytestmark = pytest.mark.usefixtures("coarse_grids")


def around(label, x, y, half=0.05, **settings):
    return series(label, [(a, Interval(b, b - half, b + half, 5)) for a, b in zip(x, y, strict=True)], **settings)


def chart(*drawn, marks=(), **settings):
    return Chart("A title", "across", "up", drawn, marks, **settings)


def drawn_on(*panels, columns=None):
    """The axes of the panels, without the keys of colours."""
    figure = plots.draw_sheet(Sheet("sheet", panels, "A caption.", columns))
    FigureCanvasAgg(figure).draw()
    return figure, figure.axes[: len(panels)]


def line(axes, label):
    (found,) = [part for part in axes.lines if part.get_label() == label]
    return found


def colour(axes, label):
    return to_hex(line(axes, label).get_color())


def words(figure):
    """All text that is drawn, upright or level, with its box; a tick beyond an axis' ends is not drawn."""
    ticks = {id(t.label1) for ax in figure.findobj(Axes) for axis in (ax.xaxis, ax.yaxis) for t in axis._update_ticks()}
    unseen = {id(label) for tick in figure.findobj(Tick) for label in (tick.label1, tick.label2)} - ticks
    found = [t for t in figure.findobj(Text) if t.get_text() and t.get_visible() and id(t) not in unseen]
    return [(t, t.get_window_extent()) for t in found if t.get_rotation() in (0, 90)]


def assert_legible(figure):
    """No text leaves the canvas or covers another, and the page is not too wide."""
    width, height = figure.canvas.get_width_height()
    texts = words(figure)
    for i, (text, box) in enumerate(texts):
        assert min(box.x0, box.y0, width - box.x1, height - box.y1) >= 0, text
        for other, there in texts[:i]:
            assert not box.overlaps(there), (text, other)
    assert figure.get_size_inches()[0] <= 10


# ---- charts: the data


def test_a_line_is_drawn_with_its_gaps_and_its_interval_as_a_band():
    x, y = [1, 2, 3, 5, 8, 9], [0.2, 0.3, nan, 0.5, 0.4, 0.3]
    _, (axes,) = drawn_on(chart(around("CFG", x, y)))
    np.testing.assert_array_equal(line(axes, "CFG").get_xydata(), np.stack([x, y], -1))
    (band,) = axes.collections
    corners = {tuple(np.round(v, 9)) for path in band.get_paths() for v in path.vertices}
    for a, b in zip(x, y, strict=True):
        if not math.isnan(b):
            assert {(a, round(b - 0.05, 9)), (a, round(b + 0.05, 9))} <= corners
    assert len(band.get_paths()) == 2  # the gap is one of the band too
    assert band.get_alpha() < 0.3


def test_a_band_needs_rising_places_and_without_them_there_are_whiskers():
    _, (axes,) = drawn_on(chart(around("trade-off", [3, 1, 2], [0.1, 0.2, 0.3])))
    (whiskers,) = axes.collections
    np.testing.assert_allclose(whiskers.get_segments()[1], [[1, 0.15], [1, 0.25]])


def test_one_seed_has_no_interval_and_is_drawn_all_the_same():
    _, (axes,) = drawn_on(chart(around("once", [1, 2], [0.1, 0.2], half=0), around("bars", [1, 2], [1, 2], 0)))
    np.testing.assert_array_equal(line(axes, "once").get_ydata(), [0.1, 0.2])


def test_points_are_not_joined_and_a_dashed_line_has_no_points():
    points = around("found", [1, 2, 3], [1, 2, 3], style="points")
    _, (axes,) = drawn_on(chart(points, Series("closed form", [1, 3], [1, 3], style="dashed")))
    assert line(axes, "found").get_linestyle() == "None"
    assert line(axes, "found").get_marker() not in ("", "None", None)
    assert line(axes, "closed form").get_linestyle() == "--"
    assert line(axes, "closed form").get_marker() in ("", "None", None)


def test_bars_stand_side_by_side_in_the_categories_that_are_written_beneath():
    heights = {"exact": [1, 2, nan, 4, 5], "networks": [2, 3, 4, 5, 6]}
    bars = [around(k, PLACES, v, half=0.5, style="bars") for k, v in heights.items()]
    figure, (axes,) = drawn_on(chart(*bars))
    for i, (label, values) in enumerate(heights.items()):
        (group,) = [c for c in axes.containers if c.get_label() == label]
        np.testing.assert_array_equal([b.get_height() for b in group], values)
        middles = [b.get_x() + b.get_width() / 2 for b in group]
        np.testing.assert_allclose(middles, np.arange(5) + (i - 0.5) * 0.4)
        whiskers = [s for s in axes.collections[i].get_segments() if len(s)]
        np.testing.assert_allclose([s[:, 1] for s in whiskers], [[v - 0.5, v + 0.5] for v in values if v == v])
    first, second = axes.containers[0][1], axes.containers[1][1]
    assert first.get_x() + first.get_width() == pytest.approx(second.get_x())
    assert [t.get_text().replace("\n", " ") for t in axes.get_xticklabels()] == PLACES
    assert list(axes.get_xticks()) == list(range(5))
    assert axes.get_ylim()[0] == 0
    assert_legible(figure)


def test_bars_over_numbers_and_points_beside_each_other_are_categories_too():
    _, (bars, points) = drawn_on(
        chart(around("bars", [0.5, 10], [1, 2], style="bars")),
        chart(*(around(k, PLACES, [1, 2, 3, 4, 5], style="points") for k in "ab")),
    )
    assert [t.get_text() for t in bars.get_xticklabels()] == ["0.5", "10"]
    np.testing.assert_allclose(line(points, "b").get_xdata() - line(points, "a").get_xdata(), 0.4)


@pytest.mark.parametrize("x_scale", ["linear", "log"])
@pytest.mark.parametrize("y_scale", ["linear", "log"])
def test_nothing_is_clipped(x_scale, y_scale):
    generator = np.random.default_rng(0)
    for _ in range(4):
        x, y = np.sort(10 ** generator.uniform(-3, 3, 6)), 10 ** generator.uniform(-2, 2, 6)
        drawn = [Series("line", x, y, y * 0.8, y * 1.3), Series("points", x * 2, y * 3, style="points")]
        where = Mark("", x=float(x[-1]) * 5), Mark("", y=float(y.max()) * 4)
        _, (axes,) = drawn_on(chart(*drawn, marks=where, x_scale=x_scale, y_scale=y_scale))
        assert (axes.get_xscale(), axes.get_yscale()) == (x_scale, y_scale)
        low, high = axes.transAxes.inverted().transform(
            axes.transData.transform([(x[0], y.min() * 0.8), (x[-1] * 5, y.max() * 4)])
        )
        assert (low > 0).all()
        assert (high < 1).all()
        assert (low < 0.15).all()  # and the room is used
        assert (high > 0.85).all()


def test_a_range_that_is_asked_for_is_kept_and_a_logarithm_of_nothing_positive_does_no_harm():
    _, (first, second) = drawn_on(
        chart(around("a", [1, 2], [0.5, 0.6]), y_range=(0.0, 1.0)),
        chart(Series("b", [1, 2], [0.0, nan], [-1.0, nan], [0.0, nan]), y_scale="log", x_scale="log"),
    )
    assert first.get_ylim() == (0, 1)
    assert second.get_ylim()[0] > 0


@pytest.mark.parametrize(("low", "high"), [(0.01, 10), (0.003, 0.8), (1.1, 1.6), (1e-6, 1e6), (1, 4096)])
def test_a_logarithmic_axis_has_ticks_that_say_where_one_is(low, high):
    figure, (axes,) = drawn_on(chart(Series("a", [low, high], [low, high]), x_scale="log", y_scale="log"))
    for ticks, (a, b) in ((axes.get_xticks(), axes.get_xlim()), (axes.get_yticks(), axes.get_ylim())):
        seen = [t for t in ticks if a <= t <= b]
        assert 3 <= len(seen) <= 15
    assert_legible(figure)


# ---- charts: colours, marks, legends


def test_equal_labels_have_equal_colours_and_markers_on_all_panels():
    a, b, c = (around(k, [1, 2], [1, 2]) for k in "abc")
    _, axes = drawn_on(chart(a, b), chart(b, c), chart(c, a))
    for label, first, second in (("a", 0, 2), ("b", 0, 1), ("c", 1, 2)):
        assert colour(axes[first], label) == colour(axes[second], label)
        assert line(axes[first], label).get_marker() == line(axes[second], label).get_marker()
    assert len({colour(axes[0], "a"), colour(axes[0], "b"), colour(axes[1], "c")}) == 3
    assert len({line(axes[0], "a").get_marker(), line(axes[0], "b").get_marker(), line(axes[1], "c").get_marker()}) == 3


def test_equal_numbers_have_equal_colours_and_none_counts_on_past_them():
    x = [1, 2]
    found, form = around("found", x, x, colour=0), Series("closed form", x, x, style="dashed", colour=0)
    _, (first, second) = drawn_on(chart(found, around("other", x, x)), chart(form, around("third", x, x, colour=5)))
    assert colour(first, "found") == colour(second, "closed form")
    assert len({colour(first, "found"), colour(first, "other"), colour(second, "third")}) == 3


def legends(figure):
    return [[t.get_text() for t in legend.get_texts()] for legend in figure.legends]


def test_one_legend_beneath_panels_that_share_their_series():
    a, b = (around(k, [1, 2], [1, 2]) for k in ("CFG", "SFG"))
    figure, axes = drawn_on(chart(a, b), chart(a), chart(b))
    assert legends(figure) == [["CFG", "SFG"]]
    (box,) = [legend.get_window_extent() for legend in figure.legends]
    assert all(box.y1 < axis.get_window_extent().y0 for axis in axes)
    assert_legible(figure)


def test_else_legends_beneath_the_neighbours_that_do():
    a, b, c = (around(k, [1, 2], [1, 2]) for k in ("CFG", "SFG", "tilted"))
    figure, axes = drawn_on(chart(a, b), chart(b), chart(c), chart(c), chart(a), chart(c), columns=3)
    assert legends(figure) == [["CFG", "SFG"], ["tilted"], ["tilted"], ["CFG"], ["tilted"]]
    for legend, (first, last) in zip(figure.legends, ((0, 1), (2, 2), (3, 3), (4, 4), (5, 5)), strict=True):
        box = legend.get_window_extent()
        left, right = axes[first].get_window_extent(), axes[last].get_window_extent()
        assert abs((box.x0 + box.x1) / 2 - (left.x0 + right.x1) / 2) < 40  # pixels, half the room of an axis' text
        assert box.y1 < left.y0
    assert_legible(figure)


def test_marks_are_grey_lines_with_words_that_cover_no_words_and_no_points():
    x = np.linspace(1, 6, 9)
    marks = [Mark("exact samples", y=0.01), Mark("the paper's", x=4.0), Mark("also", x=4.1), Mark("", y=0.2)]
    figure, (axes,) = drawn_on(chart(around("a", x, 0.1 + 0 * x, 0.01), marks=marks))
    lines = [part for part in axes.lines if part.get_linestyle() == "--"]
    assert [set(part.get_ydata()) for part in lines if len(set(part.get_ydata())) == 1] == [{0.01}, {0.2}]
    assert [set(part.get_xdata()) for part in lines if len(set(part.get_xdata())) == 1] == [{4.0}, {4.1}]
    assert {to_hex(part.get_color()) for part in lines} == {LIGHT.quiet}
    assert [t.get_text() for t in axes.texts] == ["exact samples", "the paper's", "also"]
    assert_legible(figure)
    frame = axes.get_window_extent()
    points = axes.transData.transform(np.stack([x, 0.1 + 0 * x], -1))
    for text in axes.texts:
        box = text.get_window_extent()
        assert frame.x0 - 2 <= box.x0
        assert box.x1 <= frame.x1 + 2
        assert frame.y0 <= box.y0 <= box.y1 <= frame.y1
        assert not any(box.contains(*p) for p in points)


# ---- maps


def grid(rows=21, columns=31):
    v, u = torch.meshgrid(torch.linspace(-1, 1, rows), torch.linspace(0, 3, columns), indexing="ij")
    return u, v


def test_a_map_shows_its_values_where_they_are():
    u, v = grid()
    values = u + 10 * v
    values[0, 0] = nan
    figure, (axes,) = drawn_on(Map("A map", (0, -1, 3, 1), values, "a quantity"))
    (image,) = axes.images
    shown = image.get_array()
    assert shown.mask.sum() == 1
    assert shown.mask[0, 0]
    np.testing.assert_allclose(shown.compressed(), values.double().numpy().ravel()[1:])
    assert image.origin == "lower"
    left, right, bottom, top = image.get_extent()
    rows, columns = values.shape
    np.testing.assert_allclose(left + (np.arange(columns) + 0.5) * (right - left) / columns, u[0], atol=1e-6)
    np.testing.assert_allclose(bottom + (np.arange(rows) + 0.5) * (top - bottom) / rows, v[:, 0], atol=1e-6)
    assert axes.get_xlim() == (0, 3)
    assert axes.get_ylim() == (-1, 1)
    assert axes.get_window_extent().width / axes.get_window_extent().height == pytest.approx(1.5)
    assert image.get_clim() == pytest.approx((float(values[0, 1]), 13))
    assert axes.child_axes[0].get_ylabel() == "a quantity"
    assert_legible(figure)


def test_zero_is_in_the_middle_of_the_colours_of_a_diverging_map():
    u, v = grid()
    _, (axes,) = drawn_on(Map("A map", (0, -1, 3, 1), u * v, diverging=True))
    (image,) = axes.images
    assert image.get_clim() == (-3, 3)
    red, green, blue, _ = image.to_rgba(np.array([0.0]))[0]
    assert min(red, green, blue) > 0.94  # white


def test_strokes_are_arrows_from_their_origins_or_lines_about_their_middles():
    generator = torch.Generator().manual_seed(0)
    x, d = torch.rand(9, 2, generator=generator), torch.randn(9, 2, generator=generator) / 10
    d[3] = nan
    kept = [i for i in range(9) if i != 3]
    arrows, lines = Strokes("score", x, d), Strokes("eigenvector", x, d, signed=False)
    figure, (axes,) = drawn_on(Map("A map", (-1, -1, 2, 2), strokes=(arrows, lines)))
    quiver, segments = axes.collections
    np.testing.assert_allclose(quiver.get_offsets(), x[kept], atol=1e-6)
    np.testing.assert_allclose(np.stack([quiver.U, quiver.V], -1), d[kept], atol=1e-6)
    assert (quiver.angles, quiver.scale_units, quiver.scale) == ("xy", "xy", 1)
    ends = np.array(segments.get_segments())
    np.testing.assert_allclose(ends.mean(1), x[kept], atol=1e-6)
    np.testing.assert_allclose(ends[:, 1] - ends[:, 0], d[kept], atol=1e-6)
    assert legends(figure) == [["score", "eigenvector"]]
    assert to_hex(quiver.get_facecolor()[0]) != to_hex(segments.get_color()[0])


# ---- clouds


def test_a_cloud_is_its_samples_over_the_whole_exact_region():
    data = load_dataset("fractal")
    field, border = data.field("A"), hdr_threshold(data, "A")
    x = field.sample(300, generator=torch.Generator().manual_seed(1)).float()
    spoilt = torch.cat([x, torch.tensor([[nan, 0.0], [9.0, 9.0]])])
    figure, (first, second) = drawn_on(
        Cloud("One", "fractal", "A", x, "a caption"), Cloud("Two", "fractal", "A", spoilt)
    )
    assert (first.get_xlim(), first.get_ylim()) == (second.get_xlim(), second.get_ylim())
    for axes in (first, second):
        points = {c.get_label(): np.asarray(c.get_offsets()) for c in axes.collections if c.get_label()[0] != "_"}
        inside = (field.log_density(x, 0.0) >= border).numpy()
        np.testing.assert_allclose(points["samples"], x[inside], atol=1e-6)
        np.testing.assert_allclose(points["outside"][: (~inside).sum()], x[~inside], atol=1e-6)
    assert first.get_xlabel() == "a caption"
    assert second.get_xlabel() == "1 diverged, 1 beyond the frame"
    more = field.sample(20000, generator=torch.Generator().manual_seed(2))
    u, v = more[field.log_density(more, 0.0) >= border].T
    for values, (low, high) in ((u, first.get_xlim()), (v, first.get_ylim())):
        assert low < values.min()
        assert values.max() < high
    assert legends(figure) == [["samples", "outside the exact 99 % region", "class A, 99 %", "other classes, 99 %"]]
    assert_legible(figure)


# ---- the sheet


@pytest.mark.parametrize(
    ("count", "columns", "rows"), [(1, None, [1]), (4, None, [4]), (5, None, [3, 2]), (4, 2, [2, 2])]
)
def test_panels_stand_in_even_rows_and_are_large_enough(count, columns, rows):
    a, b = around("CFG", [1, 2, 3], [1, 2, 3]), around("a rule of a rather long name", [1, 2, 3], [3, 2, 1])
    figure, axes = drawn_on(*[chart(a, b) for _ in range(count)], columns=columns)
    tops = [round(ax.get_window_extent().y1) for ax in axes]
    assert [tops.count(top) for top in dict.fromkeys(tops)] == rows
    assert len({round(ax.get_window_extent().width) for ax in axes}) == 1
    renderer = figure.canvas.get_renderer()
    assert all(ax.get_tightbbox(renderer).width >= 2.2 * figure.dpi for ax in axes)
    assert_legible(figure)


def test_long_words_are_wrapped_and_all_kinds_of_panels_stand_together():
    long = "A title that is so long that it cannot stand above a panel of this width in one line"
    bars = [around(k, [f"a category of many words {i}" for i in range(6)], range(1, 7), style="bars") for k in "ab"]
    u, v = grid()
    x = torch.randn(20, 2, generator=torch.Generator().manual_seed(0))
    figure, axes = drawn_on(
        Chart(long, long, long, bars, [Mark("a few words", y=2.0)]),
        Map(long, (0, -1, 3, 1), u * v, "value", True, [Strokes("gradient", x.abs(), x / 9)]),
        Cloud(long, "two-gaussians", None, x, long),
    )
    assert_legible(figure)
    for i, first in enumerate(axes):
        for second in axes[:i]:
            assert not first.get_tightbbox().overlaps(second.get_tightbbox())


def test_a_sheet_is_drawn_the_same_again(tmp_path):
    sheet = Sheet("a", [chart(around("a", [1, 2], [1, 2])), Map("m", (0, -1, 3, 1), grid()[0])], "")
    for name in ("first.svg", "second.svg"):
        plots.save(plots.draw_sheet(sheet), tmp_path / name)
    assert (tmp_path / "first.svg").read_bytes() == (tmp_path / "second.svg").read_bytes()
