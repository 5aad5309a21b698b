"""Settings to a URL and back, and what becomes of URLs that are wrong."""

from urllib.parse import parse_qs, urlsplit

import pytest

from toyguide_apps.explorer_page.permalink import query_of, read, search_of
from toyguide_apps.explorer_page.presets import presets
from toyguide_apps.explorer_page.state import ExplorerState

CHANGED = {
    "dataset": "two-gaussians",
    "label": "left",
    "weak": "exact+noise:0.5",
    "rule": "sfg",
    "params": {"w": 7.5, "alpha": 2.0, "h": 0.05, "sign": "score"},
    "ref": "cfg",
    "ref.params": {"w": 2.0},
    "limited": True,
    "interval": (0.125, 0.75),
    "schedule": "early:0.25",
    "sampler": "euler",
    "steps": 20,
    "n": 128,
    "seed": 3,
    "bands": "ratio",
    "layers": ["score", "saddles"],
    "source": "exact",
    "window": (-0.5, -0.25, 0.5, 0.75),
    "step": 11,
    "point": (0.125, -0.25),
    "profile": True,
    "ends": ("right", "left"),
    "errors": True,
}
SIXTEEN = {
    "dataset": "simplex16",
    "plane": ("v1+v2", "#12", " ".join(map(str, [0.25, -1.5, *range(14)]))),
    "window": (-0.5, -0.25, 0.5, 0.75),
    "point": (0.25, 0.5),
    "bands": "error-ratio",
    "layers": ["critical", "samples"],
    "rule": "sfg+autoguidance",
    "weak": "exact+noise:0.5",
}


@pytest.mark.parametrize("settings", [{}, CHANGED, SIXTEEN, *(p.settings for p in presets().values())])
def test_a_url_brings_back_the_same_request(settings):
    state, again = ExplorerState(), ExplorerState()
    state.set(settings)
    assert read(again, query_of(state)) == []
    assert again.request() == state.request()
    assert again.step == state.step
    assert again.ends == state.ends


def queried(link):
    """A link as a server reads it."""
    return {k: v[0] for k, v in parse_qs(urlsplit("http://host/explorer" + link).query).items()}


@pytest.mark.parametrize("settings", [CHANGED, SIXTEEN])
def test_a_url_survives_the_address_bar(settings):
    """Written as a browser's address and read as a server reads it: + and # mean something else in a URL."""
    state, again = ExplorerState(), ExplorerState()
    state.set(settings)
    read_by_server = queried(search_of(state))
    assert read(again, read_by_server) == []
    assert again.request() == state.request()


def test_a_fresh_explorer_has_a_short_address():
    assert search_of(ExplorerState()) == "?v=2&seed=0"


@pytest.mark.parametrize("settings", [{}, {"seed": 7}, {"bands": "none"}, CHANGED, SIXTEEN])
def test_version_and_seed_are_in_every_link(settings):
    state = ExplorerState()
    state.set(settings)
    query = queried(search_of(state))
    assert (query["v"], query["seed"]) == ("2", str(state.seed))


OLD = [
    "?v=1&rule=cfg&w=4&n=2048&layers=region,samples,boundary",
    "?v=1&rule=cfg&w=4&bands=ratio&layers=main-lines,guide-lines,guidance,region,paths,samples"
    "&step=24&window=0.26,0.7,0.8,1.24",
    "?v=1&dataset=two-gaussians&label=union&ref=cfg&ref.w=2&rule=sfg&w=4&layers=saddles,critical&step=14",
    "?v=1&dataset=simplex16&label=union&main=simplex16/short&plane=v1+v2,%2312,v3&rule=sfg&window=-1,-1,1,1&ref:steps=20&rule:n=128",
    "?v=1&field.weak=exact%2Bnoise:0.5&limited=true&interval=0.01,0.5&errors=true&profile=true&ends=B,A",
]


@pytest.mark.parametrize("link", OLD)
def test_an_old_link_shows_what_it_showed(link):
    """Nothing of it is dropped, and the window is the one that it names, at every noise level."""
    state = ExplorerState()
    query = queried(link)
    assert read(state, query) == []
    request = state.request()
    window = tuple(map(float, query["window"].split(","))) if "window" in query else state.window
    assert request.window == window
    assert request.layers == frozenset(query.get("layers", "region,samples").split(","))
    again = ExplorerState()
    assert read(again, queried(search_of(state))) == []
    assert again.request() == request


def test_a_link_without_a_version_is_one_of_today():
    state = ExplorerState()
    assert read(state, {"step": "4"}) == []
    assert state.following


def test_layers_that_are_known_are_drawn_if_others_are_not():
    state = ExplorerState()
    problems = read(state, {"v": "1", "layers": "samples,glow,score,shine"})
    assert [name for name in ("glow", "shine") if name in problems[0] + problems[1]] == ["glow", "shine"]
    assert len(problems) == 2
    assert state.layers == ["samples", "score"]


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ({"rule": "cgf"}, "cgf"),
        ({"rule": "cfg", "w": "lots"}, "lots"),
        ({"rule": "cfg", "w": "nan"}, "nan"),
        ({"rule": "cfg", "w": "1e400"}, "inf"),
        ({"rule": "cfg", "q": "1"}, "'q'"),
        ({"ref.w": "1"}, "'w'"),
        ({"ref": "cgf"}, "cgf"),
        ({"steps": "-4"}, "-4"),
        ({"steps": "1e9"}, "steps"),
        ({"n": "100000000"}, "100000000"),
        ({"label": "<script>"}, "<script>"),
        ({"window": "1,2,3"}, "window"),
        ({"window": "nan,0,1,1"}, "window"),
        ({"interval": "a,b"}, "interval"),
        ({"layers": "samples,x"}, "'x'"),
        ({"limited": "perhaps"}, "perhaps"),
        ({"schedule": "perhaps"}, "unknown schedule 'perhaps'"),
        ({"rule:schedule": "early:2"}, "early:2"),
        ({"main": "../../secret.safetensors"}, "secret"),
        ({"dataset": "/etc"}, "/etc"),
        ({"foo": "bar"}, "foo"),
        ({"label": "A" * 5000}, "5000"),
        ({"point": "1"}, "point"),
        ({"point": "nan,0"}, "point"),
        ({"point": "1e9,0"}, "point"),
        ({"point": "here,there"}, "point"),
        ({"profile": "perhaps"}, "perhaps"),
        ({"errors": "perhaps"}, "perhaps"),
        ({"ends": "A"}, "two classes"),
        ({"ends": "A,C"}, "'C'"),
        ({"ends": "B,B"}, "different"),
        ({"plane": "A,B,#1"}, "2 dimensions"),
        ({"dataset": "simplex16", "plane": "v1,v2"}, "three points"),
        ({"dataset": "simplex16", "plane": "v1,v2,v99"}, "v99"),
        ({"dataset": "simplex16", "plane": "v1,v2,v2"}, "line"),
        ({"dataset": "simplex16", "plane": "v" * 5000}, "5000"),
        ({"bands": "swirl"}, "swirl"),
        ({"v": "3"}, "version 1 to 2"),
        ({"v": "x"}, "'x'"),
        ({"v": "9" * 5000}, "version 1 to 2"),
    ],
)
def test_a_wrong_value_is_named_in_one_line_and_left_out(query, named):
    state = ExplorerState()
    problems = read(state, {**query, "seed": "4"})
    assert len(problems) == 1
    assert named in problems[0]
    assert "\n" not in problems[0]
    assert len(problems[0]) < 400
    assert state.seed == 4  # the good ones are taken over
    state.request()
