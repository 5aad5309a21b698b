"""What each rule says that it samples, against the rule's own score at the data, where guidance leaves nothing to time.

At sigma -> 0 the guided score of a rule of powers is the target's: ``sum a_r s_r + grad r``. Rules that reach their
target by resampling, or by a likelihood at D(x), are compared by the target alone.
"""

from __future__ import annotations

import pytest
import torch
from walks import W, X, gaussian

from toyguide.contract import fields_for
from toyguide.fields import score_from_denoised
from toyguide.guidance import Evaluation, Scene, rules

SIGMA = 1e-3
LINEAR = {  # rules whose guided denoiser is that of a product of powers, at the smallest noise
    "none": {},
    "cfg": {"w": 2.5},
    "autoguidance": {"w": 2.5},
    "cfg+autoguidance": {"w": 2.5, "mix": 0.3},
    "score-scaling": {"k": 1.4},
    "negative": {"posterior": "static", "lam": 0.7},
    "rlg": {"w": 1.6, "beta": 0.5},
    "fkc": {"mode": "product"},
}


@pytest.mark.parametrize("key", LINEAR)
def test_the_target_is_the_density_of_the_guided_score_at_the_data(key):
    cls = rules()[key]
    rule, fields = cls(**LINEAR[key]), fields_for(cls)
    at = Evaluation(Scene(fields, (SIGMA, 0.0), label="A"), X, SIGMA)
    _, memory = rule.begin(at, torch.Generator().manual_seed(0))
    guided = score_from_denoised(rule.guide(at, memory).denoised, X, SIGMA)
    assert torch.isfinite(guided).all()
    torch.testing.assert_close(guided, score_of(rule.target(), fields), rtol=1e-3, atol=1e-2)


APPROXIMATIONS = ("adaptive-guidance", "cfg-mp", "linear-ag", "recfg", "rectified-cfg++", "terminal-fitted")


@pytest.mark.parametrize("key", APPROXIMATIONS)
def test_what_approximates_cfg_has_its_target(key):
    assert rules()[key](w=2.5).target() == rules()["cfg"](w=2.5).target()


def test_rules_of_a_reward_tilt_by_it():
    reward = {"reward": "near", "y0": 0.3, "y1": -0.5}
    selected = rules()["svdd"](alpha=0.25, **reward).target()
    assert selected == rules()["fk-steering"](lam=4.0, **reward).target()
    assert rules()["svdd"](alpha=0.0, **reward).target() is None


def test_an_observation_gives_the_posterior():
    """Of N(0, v) and y observed in the first coordinate with variance R: mean ``v y / (v + R)``, variance
    ``v R / (v + R)``; the second coordinate is left as it was."""
    v, y, noise = 0.4, 0.7, 0.1
    target = rules()["dps"](y0=y, R=noise, observed="first").target()
    posterior = target.reward.tilted(gaussian(v))
    expected = torch.tensor([v * y / (v + noise), 0.0], dtype=W)
    torch.testing.assert_close(posterior.mean, expected, rtol=0, atol=1e-12)
    expected = torch.tensor([v * noise / (v + noise), v], dtype=W).sqrt()
    torch.testing.assert_close(posterior.std, expected, rtol=0, atol=1e-12)
    assert rules()["dps"](zeta=0.5).target() is None


def score_of(target, fields):
    found = sum(power * fields[role].score(X, 0.0) for role, power in target.powers.items() if power)
    return found if target.reward is None else found + target.reward.gradient(X)
