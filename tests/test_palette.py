"""Colours: what is seen together can be told apart, with normal vision and three deficiencies, on both grounds."""

import dataclasses
import re
from itertools import combinations

import colour_vision as vision
import pytest

from toyguide.palette import BAND_OPACITY, DARK, DASHES, LIGHT, Theme, bands, two_sided

THEMES = pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])

# In units of CIEDE2000, of which about 1 can just be seen side by side.
APART = 14.0  # marks and lines on the same picture, the ends of a map, the panels
BANDS_APART = 9.0  # filled bands of two densities
ARROWS_APART = 11.0  # strokes and marks that also differ in shape or pattern
OWN_HUE = 10.0  # from a map's end to what has another meaning


def marks_on_a_picture(theme: Theme) -> dict[str, str]:
    return {"sample": theme.sample, "outlier": theme.outlier, **theme.density}


def strongest(theme: Theme) -> dict[str, str]:
    """The strongest colour of every background."""
    found = {**theme.density, "error": theme.error}
    found |= {f"{name} {side}": end for name, ends in theme.maps.items() for side, end in enumerate(ends)}
    return {name: bands(colour, 8)[-1] for name, colour in found.items()}


def assert_apart(theme, a, b, least, visions=tuple(vision.VISIONS)):
    for name in visions:
        seen = (vision.seen(vision.over(colour, theme.ground), name) for colour in (a, b))
        assert vision.difference(*seen) >= least, (a, b, name)


@THEMES
@pytest.mark.parametrize("mark", ["sample", "outlier"])
def test_samples_stand_out_from_every_background(theme, mark):
    for colour in strongest(theme).values():
        assert_apart(theme, getattr(theme, mark), colour, APART)


@THEMES
def test_samples_outliers_paths_and_the_lines_of_fields_are_told_apart(theme):
    for a, b in combinations(marks_on_a_picture(theme).values(), 2):
        assert_apart(theme, a, b, APART)
    assert_apart(theme, theme.outlier, theme.path, APART)


@THEMES
def test_the_bands_of_fields_and_the_ends_of_each_map_are_told_apart(theme):
    strong = strongest(theme)
    for a, b in combinations(theme.density, 2):
        assert_apart(theme, strong[a], strong[b], BANDS_APART)
    for name in theme.maps:
        assert_apart(theme, strong[f"{name} 0"], strong[f"{name} 1"], APART)


@THEMES
def test_panels_are_told_apart_also_without_colour(theme):
    for a, b in combinations(theme.panels, 2):
        assert_apart(theme, a, b, APART)
    assert len(set(DASHES)) == len(theme.panels)


@THEMES
def test_strokes_and_marks_are_told_apart(theme):
    together = [*combinations(["guidance", "score", "upward"], 2), ("boundary", "region")]
    together += [("outlier", other) for other in ("upward", "guidance", "boundary")]
    together += [("mode", "upward"), ("upward", "minimum")]
    for a, b in together:
        assert_apart(theme, getattr(theme, a), getattr(theme, b), ARROWS_APART)


@THEMES
def test_nothing_else_has_the_colours_of_the_ratio_and_the_error_ratio(theme):
    plain = {f.name: getattr(theme, f.name) for f in dataclasses.fields(theme)}
    others = [v for v in plain.values() if isinstance(v, str)] + [*theme.density.values(), *theme.panels]
    for name in ("ratio", "error-ratio"):
        rest = [end for other, ends in theme.maps.items() if other != name for end in ends]
        for end in theme.maps[name]:
            for colour in others + rest:
                assert_apart(theme, end, colour, OWN_HUE, ["normal"])


@THEMES
def test_text_and_marks_have_the_contrast_that_wcag_asks_for(theme):
    def contrast(colour):
        return vision.contrast(vision.over(colour, theme.ground), vision.over(theme.ground, theme.ground))

    assert contrast(theme.ink) >= 4.5
    assert contrast(theme.quiet) >= 4.5
    drawn = ("outlier", "path", "region", "boundary", "score", "guidance", "upward", "mode", "minimum")
    for colour in [*marks_on_a_picture(theme).values(), *theme.panels, *(getattr(theme, name) for name in drawn)]:
        assert contrast(colour) >= 3
    halo = vision.over(theme.halo, theme.ground)
    for mark in (theme.sample, theme.outlier):
        assert vision.contrast(vision.over(mark, theme.ground), halo) >= 3


def test_bands_rise_from_nothing_and_maps_meet_there():
    rising = bands("#102030", 5)
    opacities = [int(colour[7:], 16) for colour in rising]
    assert {colour[:7] for colour in rising} == {"#102030"}
    assert opacities == sorted(opacities)
    assert (opacities[0], opacities[-1]) == (0, round(255 * BAND_OPACITY))
    both = two_sided(("#aabbcc", "#102030"), 5)
    assert both[4:] == rising
    assert both[:5][::-1][1:] == bands("#aabbcc", 5)[1:]
    assert all(re.fullmatch("#[0-9a-f]{8}", colour) for colour in both)


# Pairs of Sharma et al.'s Table 1, which cover each branch of the formula.
PUBLISHED = [
    ((50, 2.6772, -79.7751), (50, 0, -82.7485), 2.0425),
    ((50, 0, 0), (50, -1, 2), 2.3669),
    ((50, 2.49, -0.001), (50, -2.49, 0.0009), 7.1792),
    ((50, 2.49, -0.001), (50, -2.49, 0.0011), 7.2195),
    ((50, -0.001, 2.49), (50, 0.0011, -2.49), 4.7461),
    ((50, 2.5, 0), (73, 25, -18), 27.1492),
    ((50, 2.5, 0), (56, -27, -3), 31.9030),
    ((60.2574, -34.0099, 36.2677), (60.4626, -34.1751, 39.4387), 1.2644),
    ((22.7233, 20.0904, -46.6940), (23.0331, 14.9730, -42.5619), 2.0373),
    ((2.0776, 0.0795, -1.1350), (0.9033, -0.0636, -0.5514), 0.9082),
]


@pytest.mark.parametrize(("a", "b", "expected"), PUBLISHED)
def test_differences_are_those_published(a, b, expected):
    assert vision.difference(a, b) == pytest.approx(expected, abs=5e-5)
    assert vision.difference(b, a) == pytest.approx(expected, abs=5e-5)


def test_contrast_and_the_deficiencies_are_those_known():
    white, black, grey = (vision.over(c, "#ffffff") for c in ("#ffffff", "#000000", "#767676"))
    assert vision.contrast(white, black) == pytest.approx(21, abs=0.01)
    assert vision.contrast(grey, white) == pytest.approx(4.54, abs=0.01)  # the lightest grey that passes 4.5
    for name in vision.VISIONS:
        assert vision.seen(white, name) == pytest.approx([100, 0, 0], abs=0.02)  # greys stay grey
    assert vision.seen(vision.over("#ff0000", "#ffffff"), "normal") == pytest.approx([53.24, 80.09, 67.20], abs=0.02)
    red, green = (vision.over(c, "#ffffff") for c in ("#c06000", "#6f8000"))
    apart = {v: vision.difference(vision.seen(red, v), vision.seen(green, v)) for v in vision.VISIONS}
    assert max(apart["protanopia"], apart["deuteranopia"]) < 0.5 * min(apart["normal"], apart["tritanopia"])
