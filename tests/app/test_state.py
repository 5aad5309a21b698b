"""The explorer's settings: what may be set, what follows from what, and that wrong values change nothing."""

import pytest
import torch

import toyguide as tg
from toyguide.errors import InputError
from toyguide_apps.explorer_page.planes import home_window
from toyguide_apps.explorer_page.presets import presets
from toyguide_apps.explorer_page.roles import AUTO
from toyguide_apps.explorer_page.state import LAYERS, ExplorerState


@pytest.fixture
def state():
    return ExplorerState()


def test_opens_with_trained_networks_and_a_picture_that_can_be_computed(state):
    request = state.request()
    assert request.runs[1].references() == {"main": "fractal/main", "weak": "fractal/weak"}
    assert request.runs[0].rule == "none"
    assert request.runs[0].seed == request.runs[1].seed
    assert torch.equal(request.runs[0].start(), request.runs[1].start())


@pytest.mark.parametrize("key", list(presets()))
def test_every_preset_is_valid_and_is_what_it_says(state, key):
    preset = presets()[key]
    state.apply(key)
    request = state.request()
    request.runs[1].references()
    for name in ("dataset", "rule"):
        assert getattr(request.runs[1], name) == preset.settings[name]
    for name, value in preset.settings.get("params", {}).items():
        assert request.runs[1].params[name] == value
    assert request.layers == set(preset.settings["layers"])


def test_a_dataset_brings_its_own_classes_fields_and_window(state):
    state.set({"dataset": "two-gaussians"})
    assert state.param.label.objects == ["left", "right", "union"]
    assert state.main == "two-gaussians/main"
    assert state.window == home_window("two-gaussians")
    state.set({"dataset": "fractal", "label": "B"})
    assert state.main == "exact"  # the trained main network models class A


def test_the_mean_of_several_weak_networks_is_offered_where_there_are_several(state):
    state.set({"weak": "mean(fractal/weak*)"})
    assert state.request().runs[1].references()["weak"] == "mean(fractal/weak*)"
    state.set({"dataset": "two-gaussians"})
    with pytest.raises(InputError, match="weak"):
        state.set({"weak": "mean(two-gaussians/weak*)"})


def test_the_guide_is_the_field_that_the_rule_extrapolates_from(state):
    for rule, expected in (
        ("cfg", ("uncond", "fractal/uncond")),
        ("autoguidance", ("weak", "fractal/weak")),
        ("sfg", ("weak", "fractal/weak")),
    ):
        state.set({"rule": rule})
        assert state.guide() == expected
    state.set({"weak": "exact+noise:0.5"})
    assert state.guide() == ("weak", "exact+noise:0.5")


def test_the_interval_is_the_right_rules_alone(state):
    state.set({"limited": True, "interval": (0.1, 0.9), "ref": "cfg"})
    assert state.request().runs[1].interval == (0.1, 0.9)
    assert state.request().runs[0].interval is None


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"dataset": "fractl"}, "fractl"),
        ({"label": "Q"}, "Q"),
        ({"rule": "cgf"}, "cgf"),
        ({"rule": "cfg", "params": {"w": 1e9}}, "w = "),
        ({"rule": "cfg", "params": {"v": 1.0}}, "v"),
        ({"steps": 100_000}, "steps"),
        ({"steps": "many"}, "steps"),
        ({"n": 10**9}, "1000000000"),
        ({"seed": -1}, "seed"),
        ({"layers": ["samples", "lazers"]}, "lazers"),
        ({"layers": "samples"}, "samples"),
        ({"bands": "rainbow"}, "rainbow"),
        ({"window": (0, 0, 0, 1)}, "window"),
        ({"window": (0, 0, float("nan"), 1)}, "window"),
        ({"window": "here"}, "window"),
        ({"interval": (2.0, 1.0)}, "interval"),
        ({"main": "/etc/passwd.safetensors"}, "passwd"),
        ({"point": (1.0,)}, "point"),
        ({"point": (1.0, float("inf"))}, "point"),
        ({"point": "here"}, "point"),
        ({"profile": "yes"}, "profile"),
        ({"ends": ("v1", "w2")}, "w2"),
        ({"ends": ("v1", "v1")}, "different"),
        ({"ends": None}, "two classes"),
        ({"plane": ("v1", "v2", "w3")}, "w3"),
        ({"plane": ("v1", "v2", "v1")}, "line"),
        ({"plane": 7}, "three points"),
        ({"colour": "red"}, "colour"),
        ({"name": "x"}, "name"),
    ],
)
def test_a_wrong_setting_is_named_and_nothing_changes(state, settings, named):
    before = state.param.values()
    with pytest.raises(InputError, match=named) as caught:
        state.set({"dataset": "simplex16", **settings} if "dataset" not in settings else settings)
    assert "\n" not in str(caught.value)
    assert state.param.values() == before
    state.request()


def test_layers_that_do_not_look_at_sigma_do_not_depend_on_the_scrubber(state):
    state.set({"bands": "none", "layers": ["samples", "paths", "region"]})
    first = state.request()
    state.set({"step": 3})
    assert state.request() == first
    state.set({"layers": [*state.layers, "score"]})
    assert state.request() != first


def test_the_scrubber_stays_at_the_end_when_the_steps_change(state):
    state.set({"steps": 20})
    assert state.step == 20
    state.set({"step": 7})
    state.set({"steps": 10})
    assert state.step == 7


def test_every_rule_can_be_chosen_with_its_defaults(state):
    for key in tg.rules():
        state.set({"rule": key})
        assert state.request().runs[1].params == tg.rule(key).values()


def test_fields_of_one_rule_do_not_make_another_ruleses_experiment_differ(state):
    state.set({"rule": "cfg"})
    one = state.request().runs[1]
    state.set({"weak": "exact+noise:0.5"})
    assert state.request().runs[1] == one
    assert state.chosen("uncond") == AUTO


def test_layer_names_are_all_offered(state):
    assert set(state.param.layers.objects) == set(LAYERS)


def test_another_plane_has_its_own_window_and_edge_and_no_point(state):
    state.set({"dataset": "simplex16", "point": (0.1, 0.1), "window": (0.0, 0.0, 0.1, 0.1)})
    assert state.ends == ("v1", "v2")
    state.set({"plane": ("v4", "v7", "#3")})
    assert state.window == home_window("simplex16", ("v4", "v7", "#3"))
    assert state.point is None
    assert state.ends == ("v4", "v7")
    assert state.request().plane == ("v4", "v7", "#3")
    state.set({"window": (0.0, 0.0, 0.1, 0.1)})
    state.go_home()
    assert state.window == home_window("simplex16", ("v4", "v7", "#3"))
    state.set({"dataset": "two-gaussians"})
    assert state.plane == ()
    assert state.ends == ("left", "right")


def test_a_point_or_an_edge_looks_at_the_scrubbers_level(state):
    state.set({"bands": "none", "layers": ["samples"], "step": 5})
    assert state.request().sigma == state.levels()[0]
    state.set({"point": (0.0, 0.0)})
    assert state.request().sigma == state.levels()[5]
    state.set({"point": None, "profile": True})
    assert state.request().sigma == state.levels()[5]
    assert state.request().ends == ("A", "B")


def test_a_preset_closes_what_was_looked_into(state):
    state.set({"point": (0.0, 0.0), "profile": True})
    state.apply("figure-2")
    assert state.point is None
    assert not state.profile


def test_a_panel_whose_rule_needs_another_sampler_has_one(state):
    """Only as long as the rule needs it, and only that panel."""
    state.set({"ref": "cfg", "rule": "cfg++"})
    assert [run.sampler for run in state.request().runs] == ["heun", "euler"]
    assert state.switched_sampler(1) == "B is sampled with Euler: CFG++ needs a first-order sampler."
    state.set({"rule": "svdd"})
    assert [run.sampler for run in state.request().runs] == ["heun", "ancestral"]
    assert state.switched_sampler(1) == "B is sampled with Ancestral (SDE): SVDD needs noise in every step."
    state.set({"rule": "cfg"})
    assert [run.sampler for run in state.request().runs] == ["heun", "heun"]
    state.set({"sampler": "ancestral", "rule": "cfg++"})  # which is of first order
    assert [run.sampler for run in state.request().runs] == ["ancestral", "ancestral"]
    assert [state.switched_sampler(i) for i in (0, 1)] == ["", ""]
    state.set_own(1, {"sampler": "restart"})
    assert state.request().runs[1].sampler == "euler"
