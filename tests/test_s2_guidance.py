"""S²-guidance against CFG, and against its formula with the sub-networks built by hand."""

from __future__ import annotations

import pytest
import torch
from helpers import seeded

import toyguide as tg
from toyguide.errors import InputError
from toyguide.fields.degradations import DropoutField
from toyguide.fields.networks import EnergyMLP
from toyguide.guidance import Evaluation

X = torch.randn(24, 2, generator=seeded(1), dtype=torch.float64)
RUN = {"dataset": "fractal", "label": "A", "n": 64, "steps": 6}


def networks() -> dict[str, EnergyMLP]:
    found = {}
    for seed, role in enumerate(("main", "uncond")):
        found[role] = EnergyMLP(2, 16, 2, torch.tensor([0.5, 0.5]), generator=seeded(seed)).double()
        found[role].gain.data.fill_(-0.5)
        found[role].requires_grad_(False)
    return found


def guided(fields, memory=5, **params):
    at = Evaluation(fields, X, 0.4)
    return tg.rule("s2-guidance", **params).guide(at, memory).denoised, at.cost.evaluations


def test_omega_0_is_cfg():
    plain = tg.Experiment(**RUN, rule="cfg", params={"w": 2.5}).run("cpu")
    found = tg.Experiment(**RUN, rule="s2-guidance", params={"w": 2.5, "omega": 0.0}).run("cpu")
    assert torch.equal(found.x, plain.x)
    assert found.nfe == plain.nfe


@pytest.mark.parametrize("masks", [1, 3])
def test_it_is_the_formula_with_the_mean_of_the_thinned_networks(masks):
    fields = networks()
    main, uncond = (fields[role].denoise(X, 0.4) for role in ("main", "uncond"))
    subs = [DropoutField(fields["main"], 0.2, 5 + i).denoise(X, 0.4) for i in range(masks)]
    expected = uncond + 3.0 * (main - uncond) - 0.7 * (sum(subs) / masks - main)
    found, evaluations = guided(fields, w=3.0, omega=0.7, rate=0.2, masks=masks)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    assert evaluations == 2 + masks


def test_nothing_dropped_is_cfg():
    fields = networks()
    main, uncond = (fields[role].denoise(X, 0.4) for role in ("main", "uncond"))
    found, _ = guided(fields, w=3.0, omega=5.0, rate=0.0)
    torch.testing.assert_close(found, uncond + 3.0 * (main - uncond), rtol=0, atol=1e-10)


def test_more_masks_vary_less():
    """The variance of a mean of m independent sub-networks is 1/m of one's: over 200 seeds."""
    fields, spread = networks(), {}
    for masks in (1, 8):
        many = torch.stack([guided(fields, 1000 * i, w=1.0, omega=1.0, masks=masks)[0] for i in range(200)])
        spread[masks] = many.var(0).mean()
    # A variance from 200 values is off by a tenth, and the mean over 24 points by less.
    assert spread[1] / spread[8] == pytest.approx(8, rel=0.3)


def test_the_units_are_the_seed_s_and_new_at_each_level():
    first, again, other = (tg.Experiment(**RUN, rule="s2-guidance", seed=seed).run("cpu").x for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    rule, fields = tg.rule("s2-guidance", rate=0.5), networks()
    _, seed = rule.begin(Evaluation(fields, X, 0.4), seeded(0))
    _, same = rule.begin(Evaluation(fields, X[:3], 0.4), seeded(0))
    assert seed == same  # whatever the number of points
    drawn = [DropoutField(fields["main"], 0.5, seed).kept(X, sigma) for sigma in (0.4, 0.3)]
    assert 0.4 < (drawn[0] == drawn[1]).double().mean() < 0.6


def test_it_wants_a_network():
    with pytest.raises(InputError, match="main 'exact': expected a trained network, like fractal/main"):
        tg.Experiment(**RUN, main="exact", rule="s2-guidance").run("cpu")
