"""Settings to a URL and back, and what becomes of URLs that are wrong."""

from types import SimpleNamespace
from urllib.parse import parse_qs, urlsplit

import pytest

from toyguide_apps.explorer_page.permalink import query_of, read, write
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


@pytest.mark.parametrize("settings", [CHANGED, SIXTEEN])
def test_a_url_survives_the_address_bar(settings, monkeypatch):
    """Written as a browser's address and read as a server reads it: + and # mean something else in a URL."""
    state, again = ExplorerState(), ExplorerState()
    state.set(settings)
    bar = SimpleNamespace(search="")
    monkeypatch.setattr(
        "toyguide_apps.explorer_page.permalink.pn", SimpleNamespace(state=SimpleNamespace(location=bar))
    )
    write(state)
    read_by_server = {k: v[0] for k, v in parse_qs(urlsplit("http://host/explorer" + bar.search).query).items()}
    assert read(again, read_by_server) == []
    assert again.request() == state.request()


def test_a_fresh_explorer_has_a_plain_url():
    assert query_of(ExplorerState()) == {}


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
        ({"bands": "whirl"}, "whirl"),
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
