"""Rules with numbers that are found before a run: ReCFG's table and LinearAG's regression."""

from __future__ import annotations

import dataclasses
import itertools
import json

import numpy as np
import pytest
import torch
from helpers import seeded
from walks import FIELDS, LEVELS, W, X, gaussian, walk

import toyguide as tg
from toyguide.cli import main as cli
from toyguide.datasets.dataset import dataset_root
from toyguide.errors import InputError
from toyguide.fields import eps_from_denoised
from toyguide.fields.mixtures import GaussianMixture
from toyguide.guidance import Evaluation, Scene
from toyguide.guidance.linear_fits import LinearFit, fit_step, fits_of, signature, write_fit
from toyguide.guidance.rules.recfg import ratio
from toyguide.noise import edm_schedule
from toyguide.samplers import sampler, trajectory

CPU = torch.device("cpu")

# ReCFG


@pytest.mark.parametrize("sigma", [0.05, 0.7, 4.0])
def test_the_ratio_of_two_gaussians_is_that_of_their_variances(sigma):
    """And then nothing is left to add to the conditional field."""
    a, b = 0.3, 1.1
    narrow, wide = gaussian(a), gaussian(b)
    found = ratio(narrow, wide, narrow, sigma, W, CPU)
    torch.testing.assert_close(found, torch.full((2,), (b + sigma**2) / (a + sigma**2), dtype=W))
    at = Evaluation({"main": narrow, "uncond": wide}, X, sigma)
    guided = tg.rule("recfg", w=7.0).guide(at, None).denoised
    torch.testing.assert_close(guided, narrow.denoise(X, sigma), rtol=0, atol=1e-12)


@pytest.mark.parametrize("sigma", [0.2, 0.6, 2.0])
def test_the_ratio_by_parts(sigma):
    """``-E_c[d s_u] / E_c[s_u^2]``, by the Hessian and by the trapezoidal rule in one dimension."""
    weights, means = torch.tensor([0.6, 0.4], dtype=W), torch.tensor([[-1.0], [0.8]], dtype=W)
    covariances = torch.tensor([[[0.2]], [[0.05]]], dtype=W)
    union = GaussianMixture(weights, means, covariances)
    own = GaussianMixture(weights[:1], means[:1], covariances[:1])
    x = torch.linspace(-25, 25, 40001, dtype=W)[:, None]
    p = own.log_density(x, sigma).exp()
    slope, score = union.hessian(x, sigma)[:, 0, 0], union.score(x, sigma)[:, 0]
    expected = -torch.trapezoid(p * slope, x[:, 0]) / torch.trapezoid(p * score**2, x[:, 0])
    assert float(ratio(own, union, own, sigma, W, CPU)) == pytest.approx(float(expected), rel=2e-3)
    assert abs(float(expected) - 1) > 0.02


def test_the_table_is_of_the_class_that_is_sampled():
    """The dataset's, whatever field is the main one; against as many random points as it takes."""
    data, sigma = tg.load_dataset("fractal"), 0.3
    main, uncond = data.field("A"), data.field(None)
    x = main.sample(100, sigma, seeded(1))
    at = Evaluation(Scene({"main": main, "uncond": uncond}, (sigma, 0.0), data, "B"), x, sigma)
    guided = tg.rule("recfg", w=3.0).guide(at, None).denoised
    draws = data.field("B").sample(200_000, sigma, seeded(2))
    eps_main, eps_uncond = (eps_from_denoised(f.denoise(draws, sigma), draws, sigma) for f in (main, uncond))
    r = (eps_main * eps_uncond).mean(0) / eps_uncond.square().mean(0)
    assert (r - 1).abs().min() > 0.5
    torch.testing.assert_close(guided, x - sigma * (3 * at.eps("main") - 2 * r * at.eps("uncond")), rtol=0, atol=0.02)


def test_points_that_fill_a_mixture_have_its_moments():
    from toyguide.guidance.rules.recfg import spread

    field, sigma = FIELDS["main"], 0.4
    x = spread(field, sigma)
    torch.testing.assert_close(x.mean(0), field.mean, rtol=0, atol=5e-3)
    torch.testing.assert_close(x.var(0), field.std**2 + sigma**2, rtol=5e-3, atol=0)


def test_recfg_samples_the_narrow_gaussian_whatever_the_weight():
    e = tg.Experiment("two-variances", "narrow", "exact", "exact@wide", rule="recfg", params={"w": 6.0}, n=64)
    plain = dataclasses.replace(e, rule="none", params={})
    torch.testing.assert_close(e.run("cpu").x, plain.run("cpu").x, rtol=1e-4, atol=1e-4)


# LinearAG


def fitted(steps) -> LinearFit:
    """A fit of a CFG run's own steps, as the command makes it."""
    noise = [
        [eps_from_denoised(FIELDS[r].denoise(s.x, s.sigma), s.x, s.sigma) for r in ("main", "uncond")]
        for s in steps[:-1]
    ]
    found = [fit_step(now[1], (now[0], *before)) for before, now in itertools.pairwise(noise)]
    return LinearFit(
        "left", "a", "b", 4.0, 5, 32, 0, (0.0,), tuple(s.sigma for s in steps[1:-1]),
        tuple(tuple(c) for c, _ in found), tuple(e for _, e in found),
    )  # fmt: skip


def test_least_squares_are_those_of_numpy():
    g = seeded(4)
    features = [torch.randn(50, 2, generator=g, dtype=W) for _ in range(3)]
    target = torch.randn(50, 2, generator=g, dtype=W)
    columns = np.stack([f.numpy().ravel() for f in features], 1)
    expected, residual, *_ = np.linalg.lstsq(columns, target.numpy().ravel(), rcond=None)
    found, error = fit_step(target, features)
    assert found == pytest.approx(expected.tolist())
    assert error == pytest.approx(float((residual[0] / target.square().sum()) ** 0.5))


def copied(tmp_path, name="two-variances"):
    """A copy of a bundled dataset to write into, without its trained networks and fits."""
    (tmp_path / "dataset.toml").write_bytes((dataset_root() / name / "dataset.toml").read_bytes())
    return str(tmp_path)


def fit(folder, *more):
    return cli(["fit-linear-ag", "--dataset", folder, "--label", "narrow", "--main", "exact", *more])


@pytest.mark.parametrize("steps", [12, 20])
def test_on_linear_fields_the_regression_is_exact(tmp_path, steps, capsys):
    """Two Gaussians around one centre: the noise of one is a multiple of the other's at each level."""
    folder = copied(tmp_path)
    assert fit(folder, "--uncond", "exact@wide", "--steps", str(steps), "--n", "50", "--json") == 0
    written = json.loads(capsys.readouterr().out)
    assert max(written["errors"]) < 1e-9
    assert (written["main"], written["uncond"], len(written["levels"])) == ("exact", "exact@wide", steps - 1)
    e = tg.Experiment(
        folder, "narrow", "exact", "exact@wide", rule="linear-ag", params={"w": 2.5, "threshold": 3.0}, n=64,
        sampler="euler", steps=steps, seed=1,
    )  # fmt: skip
    run, whole = e.run("cpu"), dataclasses.replace(e, rule="cfg", params={"w": 2.5}).run("cpu")
    torch.testing.assert_close(run.x, whole.x, rtol=1e-3, atol=1e-4)
    assert run.nfe == 2 * steps - int((e.levels()[:-1] <= 3.0).sum())
    (entry,) = fits_of(e.data)
    assert entry.at(1e9) == entry.coefficients[0]
    assert entry.at(1e-9) == entry.coefficients[-1]


def test_predictions_are_those_of_the_coefficients():
    """Step by step from the true and then from the predicted noise, by hand; the first steps are CFG's."""
    data = dataclasses.replace(tg.load_dataset("two-gaussians"))
    cfg = walk(tg.rule("cfg", w=2.0), method="euler")
    entry = fitted(cfg)
    rule = tg.rule("linear-ag", w=2.0, threshold=0.7)
    scene = Scene(FIELDS, tuple(LEVELS.tolist()), data, "left")
    past = dataclasses.replace(rule.begin(Evaluation(FIELDS, X, 3.0), seeded())[1], fit=entry)
    x, before = X, None
    for i, (sigma, lower) in enumerate(zip(LEVELS[:-1].tolist(), LEVELS[1:].tolist(), strict=True)):
        at = Evaluation(scene, x, sigma, i)
        guided = rule.guide(at, past)
        past = guided.memory
        main = eps_from_denoised(FIELDS["main"].denoise(x, sigma), x, sigma)
        uncond = eps_from_denoised(FIELDS["uncond"].denoise(x, sigma), x, sigma)
        if sigma <= 0.7:
            c = entry.coefficients[i - 1]
            uncond = c[0] * main + c[1] * before[0] + c[2] * before[1]
        before = (main, uncond)
        torch.testing.assert_close(guided.denoised, x - sigma * (2 * main - uncond), rtol=0, atol=1e-10)
        assert at.cost.evaluations == (1 if sigma <= 0.7 else 2)
        x = x + (lower - sigma) * (2 * main - uncond)


def test_a_step_after_unguided_ones_evaluates_anew():
    """An interval that begins below the threshold: there is no step before to regress on."""
    from toyguide.guidance import Interval

    steps = list(
        trajectory(
            Interval(tg.rule("linear-ag", threshold=2.0), 0.2, 1.0), FIELDS, sampler("euler"), X, LEVELS, seeded()
        )
    )
    assert [b.nfe - a.nfe for a, b in itertools.pairwise(steps)] == [1, 1, 2, 1, 1]


def test_fits_are_told_by_their_fields(tmp_path, capsys):
    folder = copied(tmp_path)
    assert fit(folder, "--uncond", "exact@wide", "--n", "20") == 0
    assert fit(folder, "--uncond", "exact@union", "--n", "20") == 0
    assert fit(folder, "--uncond", "exact@wide", "--n", "20", "--w", "2") == 0  # in place of the first
    data = tg.load_dataset(folder)
    assert [(f.uncond, f.w) for f in fits_of(data)] == [("exact@union", 4.0), ("exact@wide", 2.0)]
    for f in fits_of(data):
        other = data.field("wide" if f.uncond == "exact@wide" else None)
        assert f.signature == pytest.approx(signature(data.field("narrow"), other, CPU))
    e = tg.Experiment(folder, "narrow", "exact", "exact@wide+noise:0.1", rule="linear-ag", sampler="euler", n=4)
    with pytest.raises(
        InputError, match=r"no coefficients were fitted to these fields; expected .*fit-linear-ag --data"
    ):
        e.run("cpu")
    capsys.readouterr()
    assert fit(folder, "--n", "1") == 2
    assert "--n 1: expected at least 2" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "{", "[3]", '[{"label": "narrow"}]', "null"])
def test_other_files_are_refused(tmp_path, text):
    data = tg.load_dataset(copied(tmp_path))
    (tmp_path / "linear-ag.json").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=r"linear-ag\.json: not a file of linear-ag coefficients"):
        fits_of(data)


def test_what_is_written_is_read(tmp_path):
    data = tg.load_dataset(copied(tmp_path))
    entry = fitted(walk(tg.rule("cfg"), method="euler"))
    write_fit(data, entry)
    assert fits_of(data) == (entry,)


@pytest.mark.parametrize(("main", "off"), [("exact", 0.01), ("fractal/main", 0.15)])
def test_the_bundled_fits_replace_a_quarter_of_the_evaluations(main, off):
    """The samples end where those of CFG do, on seeds that were not fitted to."""
    e = tg.Experiment("fractal", "A", main, rule="linear-ag", sampler="euler", n=256, seed=3)
    run, whole = e.run("cpu"), dataclasses.replace(e, rule="cfg", params={"w": 4.0}).run("cpu")
    assert (run.nfe, whole.nfe) == (48, 64)
    assert float((run.x[-1] - whole.x[-1]).norm(dim=-1).mean()) < off


def test_levels_between_those_of_the_fit_are_interpolated():
    entry = LinearFit(None, "", "", 4.0, 2, 2, 0, (), (1.0, 0.01), ((0.0, 1.0, 2.0), (4.0, 3.0, 2.0)), (0.0, 0.0))
    assert entry.at(0.1) == pytest.approx((2.0, 2.0, 2.0))
    assert entry.at(edm_schedule(3, 0.01, 1.0, 7.0)[0].item()) == pytest.approx((0.0, 1.0, 2.0))
