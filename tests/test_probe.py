"""A rule's terms against the fields themselves, and the guided score's Jacobian against Hessians and autograd."""

import pytest
import torch

from toyguide import Experiment, load_dataset, load_model, rule
from toyguide.fields import score_from_denoised
from toyguide.geometry.curvature import curl, top_eigenpair
from toyguide.guidance.probe import guided_at, guided_jacobian

F64 = torch.float64
SIGMA = 0.3


def exact_fields():
    data = load_dataset("fractal")
    return {"main": data.field("A"), "uncond": data.field(), "weak": data.field("B")}


def points(n=20, seed=0):
    return load_dataset("fractal").field().sample(n, SIGMA, torch.Generator().manual_seed(seed))


def test_the_terms_are_the_fields_and_their_combination():
    fields, x = exact_fields(), points(24).reshape(2, 12, 2)
    found = guided_at(rule("cfg", w=3.0), fields, x, SIGMA)
    assert set(found) == {"main", "uncond", "guided", "push"}
    main, uncond = (fields[role].denoise(x, SIGMA) for role in ("main", "uncond"))
    torch.testing.assert_close(found["main"], main)
    torch.testing.assert_close(found["uncond"], uncond)
    torch.testing.assert_close(found["guided"], 3 * main - 2 * uncond)
    torch.testing.assert_close(found["push"], 2 * (main - uncond))


def test_the_terms_are_those_of_a_runs_first_step():
    """Of a rule with a memory too, whose random numbers are then the run's."""
    e = Experiment(dataset="two-gaussians", main="exact", rule="sfg", params={"w": 5.0}, n=16, steps=4, seed=3)
    steps = list(e.walk())
    first = torch.Generator().manual_seed(3)
    seed = int(torch.randint(2**62, (), generator=first))
    found = guided_at(e.build_rule(), e.build_fields(), steps[0].x, steps[0].sigma, seed)
    torch.testing.assert_close(found["push"], steps[1].push, rtol=0, atol=0)


def test_a_memory_settles_on_the_eigenvector():
    """u -> sigma^2 lambda v, so the push is sigma w times that. h = 1e-4 is off by h times a third derivative of order
    1 in units of sigma, over an eigenvalue of at least 0.05: 2e-3."""
    field, x = exact_fields()["main"], points(200)
    value, vector = top_eigenpair(SIGMA**2 * field.hessian(x, SIGMA))
    values = torch.linalg.eigvalsh(SIGMA**2 * field.hessian(x, SIGMA))
    clear = (value > 0.05) & (values[:, 1] - values[:, 0] > 0.3)  # (1.0 / 1.3)^100 = 4e-12
    assert clear.sum() > 5
    push = guided_at(rule("sfg", w=2.0, h=1e-4), {"main": field}, x, SIGMA, settle=100)["push"]
    along = (push * vector).sum(-1, keepdim=True)
    torch.testing.assert_close(along.abs()[clear, 0], (SIGMA * 2 * value)[clear], rtol=2e-3, atol=0)
    assert ((push - along * vector).norm(dim=-1) / push.norm(dim=-1))[clear].max() < 2e-3


@pytest.mark.parametrize("name", ["none", "cfg", "autoguidance", "cfg+autoguidance", "score-scaling"])
def test_a_linear_rule_has_the_jacobian_of_its_hessians_and_no_curl(name):
    """Differences of step 1e-4 are off by its square times fifth-order terms: 1e-6 of sigma^-2 is ample."""
    fields, x = exact_fields(), points()
    chosen = rule(name)
    jacobian = guided_jacobian(chosen, fields, x, SIGMA)
    main, uncond, weak = (fields[role].hessian(x, SIGMA) for role in ("main", "uncond", "weak"))
    p = chosen.values()
    expected = {
        "none": lambda: main,
        "cfg": lambda: main + (p["w"] - 1) * (main - uncond),
        "autoguidance": lambda: main + (p["w"] - 1) * (main - weak),
        "cfg+autoguidance": lambda: main + (p["w"] - 1) * ((1 - p["mix"]) * (main - uncond) + p["mix"] * (main - weak)),
        "score-scaling": lambda: p["k"] * main,
    }[name]()
    tolerance = 1e-6 / SIGMA**2
    torch.testing.assert_close(jacobian, expected, rtol=1e-6, atol=tolerance)
    assert curl(jacobian).abs().max() < tolerance


def test_a_networks_guided_score_has_no_curl_either():
    """Its score is a gradient by construction; points in float32 are computed in float64."""
    fields = {"main": load_model("fractal/main"), "weak": load_model("fractal/weak")}
    jacobian = guided_jacobian(rule("autoguidance", w=3.0), fields, points().float(), SIGMA)
    assert jacobian.dtype == F64
    scale = jacobian.abs().max()
    assert curl(jacobian).abs().max() < 1e-6 * scale
    hessians = [fields[role].hessian(points().float().double(), SIGMA) for role in ("main", "weak")]
    torch.testing.assert_close(jacobian, 3 * hessians[0] - 2 * hessians[1], rtol=1e-5, atol=1e-6 * float(scale))


def exact_curl_of_sfg(field, x, w):
    """Of the score s + (w / sigma) sigma^2 lambda v where lambda > 0, by autograd through the closed eigenpair."""

    def push(y):
        value, vector = top_eigenpair(SIGMA**2 * field.hessian(y[None], SIGMA)[0])
        return w / SIGMA * value * vector

    return torch.stack([curl(torch.func.jacrev(push)(y)) for y in x])


def test_saddle_free_guidance_is_no_gradient_once_settled():
    """The finite difference, h = 1e-4, is off by h of a higher derivative, and the shift leaves (1 / 1.3)^100."""
    field, x, w = exact_fields()["main"], points(200, seed=1), 2.0
    values = torch.linalg.eigvalsh(SIGMA**2 * field.hessian(x, SIGMA))
    x = x[(values[:, 1] > 0.05) & (values[:, 1] - values[:, 0] > 0.3)]
    assert len(x) > 5
    expected = exact_curl_of_sfg(field, x, w)
    assert expected.abs().median() > 0.1 / SIGMA**2

    chosen = rule("sfg", w=w, h=1e-4)
    found = curl(guided_jacobian(chosen, {"main": field}, x, SIGMA, step=1e-3, settle=100))
    # An eigenvector's sign is its own: either curl is right.
    torch.testing.assert_close(found.abs(), expected.abs(), rtol=0, atol=2e-3 * float(expected.abs().max()))


def test_along_one_fixed_direction_saddle_free_guidance_is_a_gradient():
    """J v = grad (s . v) for a fixed v: unsettled, the random v is the same on both sides of each difference."""
    field, x = exact_fields()["main"], points(500, seed=1)
    jacobian = guided_jacobian(rule("sfg", w=2.0), {"main": field}, x, SIGMA)
    plain = guided_jacobian(rule("none"), {"main": field}, x, SIGMA)
    guided = (jacobian - plain).abs().amax((-1, -2)) > 0.1
    assert guided.sum() > 5
    assert curl(jacobian).abs().max() < 1e-5 / SIGMA**2


def test_the_guided_score_is_that_of_the_guided_denoiser():
    """The Jacobian integrates to the difference of guided scores: Simpson's rule, exact to fourth order."""
    fields, chosen = exact_fields(), rule("cfg", w=4.0)
    a, b = torch.tensor([[0.1, 0.2]], dtype=F64), torch.tensor([[0.12, 0.17]], dtype=F64)
    scores = [score_from_denoised(guided_at(chosen, fields, x, SIGMA)["guided"], x, SIGMA) for x in (a, b)]
    ja, jm, jb = (guided_jacobian(chosen, fields, x, SIGMA)[0] for x in (a, (a + b) / 2, b))
    integral = (ja + 4 * jm + jb) / 6 @ (b - a)[0]
    torch.testing.assert_close(integral, (scores[1] - scores[0])[0], rtol=1e-5, atol=1e-6)
