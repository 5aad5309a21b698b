"""What the studies of newer rules measure: on points with known numbers, and beside runs made by hand."""

from __future__ import annotations

import math

import pytest
import torch
from helpers import seeded
from study_rows import ExactShop, measured

from toyguide.experiment import Experiment
from toyguide.studies.claims import step_count_dependence as steps
from toyguide.studies.claims import tsr_against_scaling as tsr


def test_modes_are_described_by_their_share_and_the_variance_around_them():
    left = torch.tensor([[-1.0, 0.2], [-1.0, -0.2], [-1.2, 0.0], [-0.8, 0.0]])
    right = torch.tensor([[0.5, 0.3], [0.5, -0.3]])
    found = tsr.describe(torch.cat([left, right]))
    assert found["share"] == pytest.approx(4 / 6)
    # Sums of squares per axis: 0.16 / 2 on the left, 0.18 / 2 on the right, wherever the sides' means are.
    assert math.exp(found["log_variance"]) == pytest.approx((0.08 + 0.09) / 6)


def test_the_data_of_the_modes_are_described_as_they_are():
    found = tsr.describe(tsr.modes().sample(1 << 16, 0.0, seeded()))
    assert found["share"] == pytest.approx(0.3, abs=4 * math.sqrt(0.21 / (1 << 16)))
    assert math.exp(found["log_variance"]) == pytest.approx(0.05, rel=4 / math.sqrt(1 << 16))


def test_unguided_modes_keep_their_numbers_and_both_rules_do_the_same_there(tmp_path):
    shop = ExactShop(tmp_path, n=1024)
    one, other = (
        measured("tsr-against-scaling", shop, place="modes", rule=rule, k=1.0) for rule in ("tsr", "score-scaling")
    )
    assert one == pytest.approx(other, abs=1e-6)
    assert one["share"] == pytest.approx(0.3, abs=4 * math.sqrt(0.21 / 1024))


def test_what_a_doubling_moves_is_the_distance_of_two_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(steps, "_STEPS", (4, 8))
    found = steps._measure(ExactShop(tmp_path), "apg", 0)

    def end(count: int, rule: str, **params: float) -> torch.Tensor:
        e = Experiment(
            *("fractal", "A", "exact", "exact@union"), rule=rule, params=params, sampler="euler", steps=count, n=256
        )
        return e.run("cpu").x[-1]

    coarse, fine = (end(n, "apg", w=2.0, eta=1.0, r=math.inf, beta=-0.5) for n in (4, 8))
    for column, other in (
        ("moved_8", coarse),
        ("from_cfg_8", end(8, "cfg", w=2.0)),
        ("from_cfg-limit_8", end(8, "cfg", w=5 / 3)),
    ):
        assert found[column] == pytest.approx(float((fine - other).square().sum(-1).sqrt().mean()), rel=1e-5)


def test_the_controls_are_the_rules_themselves_at_64_steps():
    for rule in ("cfg++", "elucd"):
        assert steps._rule(f"{rule}/N", 64) == steps._rule(rule, 64)
    assert steps._rule("elucd/N", 256)[1]["gmax"] == pytest.approx(0.001)
    assert steps._rule("cfg++/N", 16)[1]["lam"] == pytest.approx(0.8)
