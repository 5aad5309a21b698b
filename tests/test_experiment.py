"""Experiments: equality, JSON, every wrong value refused, runs that repeat, and runs on disk."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import zipfile

import numpy as np
import pytest
import torch

import toyguide as tg
from toyguide.datasets import load_dataset
from toyguide.datasets.checkpoints import save_model
from toyguide.errors import InputError
from toyguide.fields.networks import EnergyMLP
from toyguide.guidance import Evaluation, Interval
from toyguide.guidance.rules.cfg import ClassifierFreeGuidance
from toyguide.samplers import SAMPLERS, misfit, sampler, trajectory

SMALL = {"dataset": "two-gaussians", "label": "left", "main": "exact", "n": 32, "steps": 6}


def small(**settings) -> tg.Experiment:
    return tg.Experiment(**{**SMALL, **settings})


# What it is


def test_json_brings_it_back():
    for e in (
        tg.Experiment(),
        small(
            rule="sfg+autoguidance", params={"w": 2, "sign": "score"}, interval=(0.1, 2), sigma_max=3, rho=5.5, seed=7
        ),
    ):
        again = tg.Experiment.from_json(e.to_json())
        assert again == e
        assert hash(again) == hash(e)
        assert again.to_json() == e.to_json()
        assert "\n" not in e.to_json()


def test_json_needs_only_what_differs():
    assert tg.Experiment.from_json('{"rule": "cfg"}') == tg.Experiment(rule="cfg")
    assert tg.Experiment.from_json('{"interval": [0.1, 1]}') == tg.Experiment(interval=(0.1, 1.0))


def test_equal_runs_are_equal_experiments():
    assert small(rule="cfg") == small(rule="cfg", params={"w": 4}) == small(rule="cfg", params={"w": 4.0})
    numbers = small(rule="cfg", params={"w": 4}, interval=[0, 1], sigma_max=3, rho=7)
    same = small(rule="cfg", params={"w": 4.0}, interval=(0.0, 1.0), sigma_max=3.0, rho=7.0)
    assert numbers == same
    assert hash(numbers) == hash(same)
    assert numbers.to_json() == same.to_json()
    assert len({small(), small(seed=1), small()}) == 2


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"n": 33}, {"rule": "cfg"}, {"interval": (0.1, 1.0)}, {"label": "right"}]
)
def test_different_runs_are_different_experiments(change):
    assert dataclasses.replace(small(), **change) != small()


def test_it_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        small().n = 5


WRONG = [
    ({"dataset": "fractl"}, r"unknown dataset .* 'fractl': .*did you mean 'fractal'\?"),
    ({"dataset": 5}, "unknown dataset .* '5'"),
    ({"label": "lefft"}, r"unknown label of two-gaussians 'lefft': .*did you mean 'left'\?"),
    ({"label": ["left"]}, r"label = \['left'\]: expected a name"),
    ({"main": 5}, "main = 5: expected a field's reference"),
    ({"uncond": 0.5}, "uncond = 0.5: expected a field's reference"),
    ({"weak": True}, "weak = True: expected a field's reference"),
    ({"fields": {"weak": ""}}, "weak = '': expected a field's reference"),
    ({"fields": "exact"}, "fields = 'exact': expected a table of references by role"),
    ({"rule": "cfgg"}, r"unknown rule 'cfgg': .*did you mean 'cfg'\?"),
    ({"rule": ["cfg"]}, r"unknown rule \"\['cfg'\]\""),
    ({"rule": None}, "unknown rule 'None'"),
    ({"rule": "cfg", "params": {"v": 3}}, "unknown parameter of cfg 'v': expected one of w"),
    ({"rule": "cfg", "params": {"w": -1}}, "cfg: w = -1: expected a number from 0.0 to 30.0"),
    ({"rule": "cfg", "params": {"w": "3"}}, "cfg: w = '3': expected a number"),
    ({"rule": "cfg", "params": {"w": math.nan}}, "cfg: w = nan: expected a number"),
    ({"rule": "cfg", "params": {"w": None}}, "cfg: w = None: expected a number"),
    ({"rule": "cfg", "params": {"w": [3]}}, r"cfg: w = \[3\]: expected a number"),
    ({"rule": "cfg", "params": {"key": 3}}, "unknown parameter of cfg 'key'"),
    ({"rule": "cfg", "params": {"self": 3}}, "unknown parameter of cfg 'self'"),
    ({"rule": "sfg", "params": {"sign": "scor"}}, "sfg: sign = 'scor': expected one of persistent, score"),
    ({"params": [3]}, r"params = \[3\]: expected a table"),
    ({"params": {3: 3}}, r"params = \{3: 3\}: expected a table"),
    ({"interval": (1.0, 0.5)}, r"interval = \(1.0, 0.5\): expected two noise levels, 0 <= low < high"),
    ({"interval": (-1.0, 0.5)}, "0 <= low < high"),
    ({"interval": (0.5, math.inf)}, "0 <= low < high"),
    ({"interval": (math.nan, 0.5)}, "0 <= low < high"),
    ({"interval": (0.5,)}, "expected two noise levels"),
    ({"interval": 0.5}, "interval = 0.5: expected two noise levels"),
    ({"interval": "ab"}, "interval = 'ab': expected two noise levels"),
    ({"interval": (False, True)}, "expected two noise levels"),
    ({"sampler": "huen"}, r"unknown sampler 'huen': .*did you mean 'heun'\?"),
    ({"sampler": ["heun"]}, "unknown sampler"),
    ({"steps": 0}, "steps = 0: expected a whole number from 1 to 10000"),
    ({"steps": 8.0}, "steps = 8.0: expected a whole number"),
    ({"steps": True}, "steps = True: expected a whole number"),
    ({"steps": "8"}, "steps = '8': expected a whole number"),
    ({"n": 0}, "n = 0: expected a whole number from 1"),
    ({"n": 10**9}, "n = 1000000000: expected a whole number from 1 to 100000000"),
    ({"seed": -1}, "seed = -1: expected a whole number from 0"),
    ({"seed": 2**63}, "seed = 9223372036854775808: expected a whole number from 0"),
    ({"seed": None}, "seed = None: expected a whole number"),
    ({"sigma_min": 0}, "sigma_min = 0: expected a positive number"),
    ({"sigma_min": 9.0}, "sigma range 9.0 … 8.0: expected .*sigma_min < sigma_max"),
    ({"sigma_max": math.inf}, "sigma_max = inf: expected a positive number"),
    ({"sigma_max": "5"}, "sigma_max = '5': expected a positive number"),
    ({"rho": -7}, "rho = -7: expected a positive number"),
    ({"rho": True}, "rho = True: expected a positive number"),
]


@pytest.mark.parametrize(("change", "complaint"), WRONG, ids=[str(c) for c, _ in WRONG])
def test_every_wrong_value_is_refused_in_one_line(change, complaint):
    with pytest.raises(InputError, match=complaint) as caught:
        small(**change)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "experiment: not JSON"),
        ("{", "experiment: not JSON"),
        ("[" * 100_000, "experiment: not JSON"),
        ("[1]", "experiment: expected a JSON object"),
        ('{"stepz": 3}', r"unknown setting of an experiment 'stepz': .*did you mean 'steps'\?"),
        ('{"steps": 1e3}', "steps = 1000.0: expected a whole number"),
        ('{"rule": {"cfg": 1}}', "unknown rule"),
    ],
)
def test_wrong_json_is_refused_in_one_line(text, complaint):
    with pytest.raises(InputError, match=complaint):
        tg.Experiment.from_json(text)


def test_a_first_order_rule_refuses_heun(monkeypatch):
    monkeypatch.setattr(ClassifierFreeGuidance, "first_order", True)
    for interval in (None, (0.1, 1.0)):
        with pytest.raises(InputError, match="sampler 'heun': the rule 'cfg' needs a first-order one, like 'euler'"):
            small(rule="cfg", interval=interval)
        assert small(rule="cfg", interval=interval, sampler="euler").sampler == "euler"


def test_only_needed_fields_are_looked_for():
    """A rule that needs no weak field does not stumble over a wrong one; main alone is always there."""
    assert small(rule="cfg", weak="nothing/there").references() == {"main": "exact", "uncond": "exact@union"}
    assert small(rule="autoguidance").references() == {"main": "exact", "weak": "exact+noise:0.2"}
    assert set(small(rule="autoguidance", weak="exact+noise:1").build_fields()) == {"main", "weak"}
    with pytest.raises(InputError, match=r"unknown dataset .* 'nothing'"):
        small(rule="autoguidance", weak="nothing/there").build_fields()


def test_levels_are_the_datasets_or_ones_own():
    levels = small().levels()
    assert (float(levels[0]), float(levels[-2]), float(levels[-1])) == pytest.approx((8.0, 0.002, 0.0))
    own = small(sigma_min=0.5, sigma_max=2.0, rho=1.0, steps=4).levels()
    torch.testing.assert_close(own, torch.tensor([2.0, 1.5, 1.0, 0.5, 0.0], dtype=torch.float64))


# Runs


def test_start_is_the_exact_distribution_at_the_first_level():
    """50,000 draws: mean and variance within four standard errors (sd/sqrt(n); var sqrt(2/n))."""
    x = small(n=50_000, sigma_max=2.0).start()
    variance = 0.05 + 4.0
    assert x.dtype == torch.float32
    assert ((x.mean(0) - torch.tensor([-1.0, 0.0])).abs() < 4 * math.sqrt(variance / 50_000)).all()
    assert ((x.var(0) / variance - 1).abs() < 4 * math.sqrt(2 / 50_000)).all()


def test_a_run_repeats_itself():
    e = small(rule="sfg")  # draws random directions
    a, b = e.run("cpu"), e.run("cpu")
    assert torch.equal(a.x, b.x)
    assert torch.equal(a.trace["v"], b.trace["v"])
    other = dataclasses.replace(e, seed=1).run("cpu")
    assert not torch.equal(other.x, a.x)
    assert not torch.equal(other.trace["v"][0], a.trace["v"][0])


def test_a_rules_random_numbers_are_not_the_starts():
    e = small(rule="sfg")
    same_stream = e.build_rule().begin(Evaluation({}, e.start(), 1.0), torch.Generator().manual_seed(e.seed))[1].v
    assert (e.run("cpu").trace["v"][0] - same_stream).abs().max() > 0.1


def test_rules_share_their_start():
    trained = {"network", "internal", "adapter"}  # kinds of roles that no exact field fills
    any_field = [key for key, cls in tg.rules().items() if not trained & {role.kind for role in cls.roles().values()}]
    pairs = [(key, s) for key in any_field for s in SAMPLERS if not misfit(tg.rule(key), s)]
    starts = [small(rule=key, sampler=s).run("cpu").x[0] for key, s in pairs]
    assert all(torch.equal(s, starts[0]) for s in starts)
    assert torch.equal(small(n=8).start(), small(n=8, steps=99).start())


def test_a_run_is_its_loop():
    e = small(rule="cfg", params={"w": 2.0}, interval=(0.05, 1.0))
    data = load_dataset("two-gaussians")
    fields = {"main": data.field("left"), "uncond": data.field(None)}
    rule = Interval(tg.rule("cfg", w=2.0), 0.05, 1.0)
    steps = list(trajectory(rule, fields, sampler("heun"), e.start(), e.levels(), torch.Generator()))
    r = e.run("cpu")
    assert torch.equal(r.x, torch.stack([s.x for s in steps]))
    assert r.x.shape == (7, 32, 2)
    assert r.sigma.tolist() == pytest.approx(e.levels().tolist())
    assert r.nfe == steps[-1].nfe
    assert r.seconds > 0


def test_a_run_can_be_watched():
    seen = []

    def watch(steps):
        for step in steps:
            seen.append(step.index)
            yield step

    small().run("cpu", watch=watch)
    assert seen == list(range(7))


def test_trace_is_nan_where_nothing_was_guided():
    r = small(rule="sfg", interval=(0.05, 1.0)).run("cpu")
    inside = (r.sigma[:-1] > 0.05) & (r.sigma[:-1] <= 1.0)
    assert inside.any()
    assert not inside.all()
    assert torch.equal(r.trace["lambda"].isfinite().all(-1), inside)
    assert r.trace["v"].shape == (6, 32, 2)


def test_metrics_are_of_the_final_points():
    r = small(n=256, steps=16).run("cpu")
    measured = r.metrics(resamples=0)
    p = r.experiment.data.field("left").log_density(r.x[-1], 0.0)
    assert measured["log_density"] == pytest.approx(float(p.double().mean()), rel=1e-5)
    assert (measured["n"], measured["diverged"], measured["nfe"]) == (256, 0, 31)
    assert measured["seconds"] == r.seconds


@pytest.fixture
def wild(tmp_path):
    """A network whose energy grows upward, so that guidance by it throws points out of the finite numbers."""
    network = EnergyMLP(2, 8, 2, torch.full((2,), 0.5), (), torch.Generator().manual_seed(0))
    network.gain.data.fill_(-1e4)
    network.label = "left"
    save_model(network, tmp_path / "wild.safetensors", {})
    return str(tmp_path / "wild.safetensors")


def test_a_run_that_diverges_says_so_and_goes_on(wild):
    r = small(rule="autoguidance", params={"w": 30}, weak=wild, steps=32).run("cpu")
    assert r.x.shape == (33, 32, 2)
    assert 0 < r.diverged == int((~r.x[-1].isfinite()).any(-1).sum())
    assert r.metrics(resamples=0)["diverged"] == r.diverged
    assert small().run("cpu").diverged == 0


def test_an_unknown_device_is_refused():
    with pytest.raises(InputError, match=r"unknown device 'gpu': expected one of auto, cpu, cuda"):
        small().run("gpu")
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="device 'cuda': no CUDA device is available here"):
            small().run("cuda")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("rule", ["none", "cfg", "autoguidance", "sfg"])
def test_a_gpu_run_is_the_cpu_run(rule):
    """To float32 rounding carried through 16 steps of a contracting flow."""
    e = small(rule=rule, steps=16)
    torch.testing.assert_close(e.run("cuda").x, e.run("cpu").x, rtol=1e-3, atol=1e-3)


# On disk


def test_a_saved_run_comes_back(tmp_path):
    r = small(rule="sfg", interval=(0.05, 1.0)).run("cpu")
    r.save(tmp_path / "run.npz")
    again = tg.Result.load(tmp_path / "run.npz")
    assert again.experiment == r.experiment
    assert torch.equal(again.x, r.x)
    assert torch.equal(again.sigma, r.sigma)
    assert (again.nfe, again.seconds) == (r.nfe, r.seconds)
    assert set(again.trace) == {"v", "lambda"}
    for name in again.trace:
        torch.testing.assert_close(again.trace[name], r.trace[name], rtol=0, atol=0, equal_nan=True)
    assert [p.name for p in tmp_path.iterdir()] == ["run.npz"], "no temporary file is left"

    with np.load(tmp_path / "run.npz", allow_pickle=False) as arrays:  # the format others read
        assert arrays["x"].shape == (7, 32, 2)
        assert arrays["sigma"].shape == (7,)
        assert json.loads(str(arrays["experiment"]))["rule"] == "sfg"


def damaged(folder, how):
    """A saved run, spoilt."""
    path = folder / "run.npz"
    small().run("cpu").save(path)
    if how == "truncated":
        path.write_bytes(path.read_bytes()[:-200])
    elif how == "overwritten":
        blob = bytearray(path.read_bytes())
        blob[300:400] = bytes(100)
        path.write_bytes(blob)
    elif how == "pickle":
        path.write_bytes(b"\x80\x04}\x94.")  # an empty dict
    elif how == "text":
        path.write_text("x\n")
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x.npy", b"not an array")
    elif how == "npy":
        with path.open("wb") as file:
            np.save(file, np.zeros(3))
    else:
        with np.load(path) as arrays:
            parts = dict(arrays)
        changes = {
            "objects": {"x": np.array([{"a": 1}, None], dtype=object)},
            "shape": {"x": parts["x"][:, :-1]},
            "levels": {"sigma": parts["sigma"][:-1]},
            "dtype": {"x": parts["x"].astype(int)},
            "trace": {"trace.v": np.array("text")},
            "other experiment": {"experiment": np.array('{"dataset": "nothing"}')},
            "no experiment": {"experiment": None},
        }[how]
        parts = {k: v for k, v in {**parts, **changes}.items() if v is not None}
        buffer = io.BytesIO()
        np.savez(buffer, **parts)
        path.write_bytes(buffer.getvalue())
    return path


@pytest.mark.parametrize(
    ("how", "complaint"),
    [
        *(
            (how, "damaged, or not written by toyguide sample")
            for how in ("truncated", "overwritten", "pickle", "text")
        ),
        *((how, "damaged, or not written by toyguide sample") for how in ("empty", "zip", "npy", "objects", "trace")),
        ("no experiment", "damaged, or not written by toyguide sample"),
        ("shape", r"its points are \(7, 31, 2\), torch.float32: expected \(7, 32, 2\)"),
        ("levels", r"its points are .*: expected \(7, 32, 2\)"),
        ("dtype", r"its points are \(7, 32, 2\), torch.int64: expected \(7, 32, 2\), torch.float32"),
        ("other experiment", "unknown dataset .* 'nothing'"),
    ],
)
def test_a_damaged_run_is_refused_in_one_line(tmp_path, how, complaint):
    with pytest.raises(InputError, match=rf"run '.*run.npz': .*{complaint}") as caught:
        tg.Result.load(damaged(tmp_path, how))
    assert "\n" not in str(caught.value)


class Bomb:
    """What runs when it is unpickled."""

    def __init__(self, marker) -> None:
        self.marker = marker

    def __reduce__(self):
        return (type(self.marker).touch, (self.marker,))


def test_a_pickle_in_a_run_is_not_opened(tmp_path):
    small().run("cpu").save(tmp_path / "run.npz")
    with np.load(tmp_path / "run.npz") as arrays:
        parts = dict(arrays)
    np.savez(tmp_path / "run.npz", **parts, bomb=np.array([Bomb(tmp_path / "exploded")], dtype=object))
    with pytest.raises(InputError, match="damaged, or not written by toyguide sample"):
        tg.Result.load(tmp_path / "run.npz")
    assert not (tmp_path / "exploded").exists()


def test_a_run_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        tg.Result.load(tmp_path / "nothing.npz")


def test_saving_fails_whole(tmp_path, monkeypatch):
    r = small().run("cpu")
    for path, complaint in (
        (tmp_path / "no" / "run.npz", "the folder .* does not exist"),
        (tmp_path, "is a folder: expected a file name"),
    ):
        with pytest.raises(InputError, match=complaint):
            r.save(path)

    def full(file, **arrays):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", full)
    (tmp_path / "run.npz").write_bytes(b"the last good one")
    with pytest.raises(InputError, match=r"cannot be written \(No space left on device\)"):
        r.save(tmp_path / "run.npz")
    assert [p.name for p in tmp_path.iterdir()] == ["run.npz"]
    assert (tmp_path / "run.npz").read_bytes() == b"the last good one"


def test_another_seed_is_another_experiment():
    e = tg.Experiment("fractal", "A", rule="cfg", params={"w": 2.0}, n=8, seed=1)
    assert e.with_seed(5) == tg.Experiment("fractal", "A", rule="cfg", params={"w": 2.0}, n=8, seed=5)
    assert e.seed == 1
    with pytest.raises(InputError, match="seed = -1"):
        e.with_seed(-1)
