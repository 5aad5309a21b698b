"""The distance of samples to their rule's own target, against closed forms and exact samples of it."""

from __future__ import annotations

import json
import math

import pytest
import torch
from helpers import seeded
from walks import W, gaussian

import toyguide as tg
from toyguide.cli import main
from toyguide.errors import InputError
from toyguide.metrics import sliced
from toyguide.metrics.to_target import measure_to_target
from toyguide.targets import Target, ideal_field

WIDE = tg.load_dataset("two-variances")
FIELDS = {"main": WIDE.field("narrow"), "uncond": WIDE.field("wide")}
TILT = Target({"main": 3.0, "uncond": -2.0})  # N(0, 1/2)


def measured(x, seed=0):
    return measure_to_target(x, TILT, FIELDS, WIDE, "narrow", seed)


def test_samples_of_the_target_are_at_no_distance():
    found = [measured(gaussian(0.5).sample(2000, generator=seeded(s)), s) for s in range(6)]
    for name in ("target_w2", "target_kl"):
        own = torch.tensor([f[name] for f in found], dtype=W)
        reference = torch.tensor([f[f"{name}_reference"] for f in found], dtype=W)
        spread = torch.cat([own, reference]).std() * math.sqrt(2 / len(found))
        assert float((own.mean() - reference.mean()).abs()) < 4 * float(spread)
    kl = torch.tensor([f["target_kl"] for f in found], dtype=W)
    assert float(kl.mean().abs()) < 4 * math.sqrt(127 / 2) / 2000 / math.sqrt(len(found))
    assert float(kl.std()) == pytest.approx(math.sqrt(127 / 2) / 2000, rel=0.75)


def test_the_distances_of_gaussians_are_known():
    """N(m, s^2) to N(0, v): along a direction u, W2^2 is ``(m.u)^2 + (s - sqrt(v))^2``."""
    shift = torch.tensor([0.3, -0.4], dtype=W)
    x = gaussian(0.8).sample(20_000, generator=seeded(1)) + shift
    found = measured(x)
    along = float((sliced._directions(2) @ shift).square().mean())
    assert found["target_w2"] == pytest.approx(math.sqrt(along + (math.sqrt(0.8) - math.sqrt(0.5)) ** 2), rel=0.03)
    full = math.log(0.5 / 0.8) + 0.8 / 0.5 - 1 + 0.25 / (2 * 0.5)
    assert 0.6 * full < found["target_kl"] < full


def test_coverage_is_of_the_targets_own_shares():
    """Of a product that leaves one of two classes alone the samples of that class cover all, those of both half."""
    data = tg.load_dataset("two-gaussians")
    fields = {"main": data.field(None), "uncond": data.field("left")}
    alone = Target({"main": 1.0, "uncond": 1.0})
    for field, expected in ((data.field("left"), 1.0), (data.field(None), 0.5)):
        found = measure_to_target(field.sample(4000, generator=seeded(0)), alone, fields, data, None)
        assert found["target_coverage"] == pytest.approx(expected, abs=0.02)
        assert found["target_coverage_reference"] == pytest.approx(1.0, abs=0.01)


def test_samples_that_are_not_finite_do_not_count():
    x = gaussian(0.5).sample(500, generator=seeded(0))
    lost = torch.full((3, 2), math.nan, dtype=W)
    assert measured(torch.cat([lost, x])) == measured(x)
    assert measured(lost)["target_kl"] is None


def test_in_many_dimensions_samples_are_weighted():
    data = tg.load_dataset("simplex16")
    fields = {"main": data.field("v1"), "uncond": data.field(None)}
    x = data.field("v1").sample(1000, generator=seeded(0))
    found = measure_to_target(x, Target({"main": 2.0, "uncond": -1.0}), fields, data, "v1")
    assert found["target_kl"] == pytest.approx(0, abs=5 * math.sqrt(127 / 2) / 1000)
    assert found["target_effective"] > 10_000


def test_the_ideal_is_nearer_to_the_target_than_cfg():
    def run(rule, **params):
        e = tg.Experiment(
            "two-variances", "narrow", "exact", "exact@wide", rule=rule, params={"w": 3.0, **params}, n=1500
        )
        return e.run(device="cpu").target_metrics()

    ideal, cfg = run("ideal", aim="tilt"), run("cfg")
    assert ideal["target_kl"] < 0.03 < 0.1 < cfg["target_kl"]
    assert ideal["target_w2"] < 0.5 * cfg["target_w2"]


def test_networks_are_compared_with_the_exact_target():
    """Autoguidance by perfect networks would change nothing: its target is the class itself."""
    e = tg.Experiment("fractal", "A", rule="autoguidance", params={"w": 2.0}, n=64, steps=4)
    found = e.run(device="cpu").target_metrics()
    assert found["target_coverage"] <= 1
    exact = {"main": e.data.field("A"), "weak": e.data.field("A")}
    assert ideal_field(e.build_rule().target(), exact) is e.data.field("A")


def test_what_has_no_target_is_refused():
    with pytest.raises(InputError, match="nobody says which density sfg"):
        tg.Experiment("two-gaussians", "left", rule="sfg", main="exact", n=8, steps=2).run().target_metrics()
    e = tg.Experiment("two-gaussians", "left", main="exact", rule="autoguidance", n=8, steps=2)
    with pytest.raises(InputError, match="'weak' is of type NoisierField, expected an exact one or a network"):
        e.run(device="cpu").target_metrics()


def test_the_command(tmp_path, capsys):
    path = tmp_path / "run.npz"
    e = tg.Experiment("two-variances", "narrow", "exact", "exact@wide", rule="cfg", params={"w": 3.0}, n=64, steps=4)
    result = e.run(device="cpu")
    result.save(path)
    main(["metrics", str(path), "--target"])
    assert "W2 to the target" in capsys.readouterr().out
    main(["metrics", str(path), "--target", "--json"])
    assert json.loads(capsys.readouterr().out)["target_kl"] == result.target_metrics()["target_kl"]
