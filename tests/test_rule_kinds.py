"""Rules that are no linear combination of two fields: each of ``tests/example_rules`` against a closed form or another
rule, and through the command line and a sweep."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

import toyguide as tg
from toyguide.cli import main
from toyguide.datasets.classifiers import ExactClassifier
from toyguide.errors import InputError
from toyguide.fields.ensembles import MeanField
from toyguide.fields.mixtures import GaussianMixture
from toyguide.guidance import Evaluation, Guided, Rule, Scene
from toyguide.samplers import follow, sampler, trajectory
from toyguide.sweeps import sweep
from toyguide.sweeps.batch import batches, identity, run_batch

W = torch.float64
EXAMPLES = Path(__file__).parent / "example_rules"
DEFAULTS = {
    "two-weak": {"main": "exact", "weak": "exact+noise:0.2", "weak2": "exact+noise:0.4"},
    "ascent": {"main": "fractal/main", "classifier": "posterior"},
    "pull": {"main": "fractal/main"},
    "tilted": {"main": "fractal/main"},
    "thinned": {"main": "fractal/main"},
}
PAIR = tg.load_dataset("two-gaussians")


@pytest.fixture(autouse=True)
def examples(monkeypatch):
    monkeypatch.setenv("TOYGUIDE_RULES", str(EXAMPLES))


def experiment(key: str, **settings) -> tg.Experiment:
    main = {"main": DEFAULTS[key]["main"]}
    method = "ancestral" if key == "tilted" else "heun"
    return tg.Experiment("fractal", "A", **{**main, "rule": key, "n": 64, "steps": 6, "sampler": method, **settings})


@pytest.mark.parametrize("key", DEFAULTS)
def test_it_runs_on_the_command_line(key, tmp_path, capsys):
    run = tmp_path / "run.npz"
    more = ["--sampler", "ancestral"] if key == "tilted" else []
    more += ["--main", "exact"] if key == "two-weak" else []
    arguments = ["sample", "--label", "A", "--rule", key, "--n", "64", "--steps", "6", *more, "-o", str(run), "--json"]
    assert main(arguments) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["experiment"]["fields"] == DEFAULTS[key]
    assert torch.equal(tg.Result.load(run).x, experiment(key).run("cpu").x)


@pytest.mark.parametrize("key", DEFAULTS)
def test_it_runs_in_a_sweep(key):
    """A row is what the run by itself gives; only rules whose points are independent share a batch."""
    runs = [experiment(key, seed=seed) for seed in range(3)]
    grouped = [len(batch) for batch in batches(runs)]
    assert grouped == ([3] if key in ("two-weak", "ascent", "pull") else [1, 1, 1])
    rows = [row for batch in sweep(runs, device="cpu") for row in batch]
    for row, run in zip(rows, runs, strict=True):
        alone = run.run("cpu")
        assert (row["nfe"], row["gradients"]) == (alone.nfe, alone.gradients)
        assert row["log_density"] == pytest.approx(alone.metrics(resamples=0)["log_density"], abs=1e-3)
        assert {k: row[k] for k in DEFAULTS[key]} == DEFAULTS[key]


def test_a_rule_of_this_process_is_refused_by_other_processes():
    class Mine(Rule):
        key = "only-here"

        def guide(self, at, memory):
            return Guided(at.denoised())

    from concurrent.futures import ThreadPoolExecutor

    from toyguide.guidance.base import DEFINED

    try:
        runs = [tg.Experiment(label="A", main="exact", rule="only-here", n=8, steps=2)]
        assert len(run_batch([runs[0].to_json()], "cpu")) == 1
        with (
            ThreadPoolExecutor(1) as pool,
            pytest.raises(InputError, match="'only-here': is defined in this proc"),
        ):
            list(sweep(runs, pool, "cpu"))
    finally:
        del DEFINED["only-here"]


# Each against something independent


def test_two_equal_weak_fields_are_one():
    twice = experiment("two-weak", fields={"weak": "exact+noise:0.3", "weak2": "exact+noise:0.3"}, params={"w": 2.0})
    once = tg.Experiment("fractal", "A", "exact", weak="exact+noise:0.3", rule="autoguidance", params={"w": 2.0},
                         n=64, steps=6)  # fmt: skip
    torch.testing.assert_close(twice.run("cpu").x, once.run("cpu").x, rtol=0, atol=1e-5)
    assert (twice.run("cpu").nfe, once.run("cpu").nfe) == (33, 22)
    assert twice.warnings() == ["two-weak: weak and weak2 are the same field, exact@A+noise:0.3"]


def test_an_exact_classifier_is_cfg():
    settings = {"label": "left", "main": "exact", "params": {"w": 2.5}, "n": 64, "steps": 8}
    ascent = tg.Experiment("two-gaussians", rule="ascent", **settings).run("cpu")
    cfg = tg.Experiment("two-gaussians", rule="cfg", **settings).run("cpu")
    torch.testing.assert_close(ascent.x, cfg.x, rtol=0, atol=2e-5)
    assert (ascent.nfe, ascent.gradients, cfg.nfe, cfg.gradients) == (15, 15, 30, 0)


def test_a_classifier_without_a_class_is_refused():
    with pytest.raises(InputError, match="label: this rule climbs the probability of a class, expected a run of one"):
        tg.Experiment("two-gaussians", None, "exact", rule="ascent", n=8, steps=2).run("cpu")


def test_a_pull_is_the_gradient_through_the_denoiser():
    """Autograd through the exact denoiser, and through the network's, in float64."""
    x = torch.randn(32, 2, generator=torch.Generator().manual_seed(1), dtype=W)
    for field in (PAIR.field(None), tg.load_model("two-gaussians/main")):
        at = Evaluation({"main": field}, x, 0.5)
        push = tg.rule("pull", zeta=1.5).guide(at, None).denoised - at.denoised()
        points = x.clone().requires_grad_()
        denoised = points + 0.25 * torch.autograd.functional.jacobian(
            lambda y, f=field: f.log_density(y, 0.5).sum(), points, create_graph=True
        )
        (gradient,) = torch.autograd.grad(denoised.square().sum() / 2, points)
        torch.testing.assert_close(push, -1.5 * 0.25 * gradient, rtol=1e-7, atol=1e-9)
        assert at.cost.gradients == 1


def test_tilted_particles_reach_the_tilted_gaussian():
    """``N(0, v) e^(lam x)`` is ``N(lam v, v)``, with v the variance that the same steps have without the tilt.

    The potentials telescope to the reward's growth since the first level, where it is a hundredth of the whole. Four
    standard errors: of the variance from 2^16 points, and of the mean from 8 independent runs, because resampling
    correlates the particles of one.
    """
    lam, count = 2.0, 1 << 16
    field = GaussianMixture(torch.ones(1), torch.zeros(1, 2), 0.25 * torch.eye(2)[None])
    levels = tg.Experiment(main="exact", label="A", steps=24, sigma_max=5.0).levels()

    def end(rule: Rule, n: int, seed: int) -> torch.Tensor:
        g = torch.Generator().manual_seed(seed)
        start = field.sample(n, float(levels[0]), g)
        return list(trajectory(rule, {"main": field}, sampler("ancestral"), start, levels, g))[-1].x

    variance = float(end(tg.rule("none"), count, 100)[:, 0].var())
    means = torch.stack([end(tg.rule("tilted", lam=lam), 1024, seed).mean(0) for seed in range(8)])
    found, error = means.mean(0), means.std(0) / math.sqrt(8)
    allowed = 4 * float(error[0]) + 4 * lam * variance * math.sqrt(2 / count) + 0.01 * lam * variance
    assert abs(float(found[0]) - lam * variance) < allowed
    assert abs(float(found[1])) < 4 * float(error[1])


def test_a_thinned_network_is_another_one_at_each_step():
    run = experiment("thinned", params={"w": 3.0}, n=2048).run("cpu")
    assert run.nfe == 22
    by_hand = experiment("thinned", params={"w": 1.0}, n=2048).run("cpu")
    assert not torch.equal(run.x[-1], by_hand.x[-1])


def test_a_thinned_network_needs_a_network():
    with pytest.raises(InputError, match="main 'exact': expected a trained network, like fractal/main"):
        experiment("thinned", main="exact").run("cpu")


# Samplers, previews and genealogies


def test_candidates_need_noise():
    with pytest.raises(InputError, match="sampler 'heun': the rule 'tilted' needs one with noise, like 'ancestral'"):
        experiment("tilted", sampler="heun")


def test_points_that_see_each_other_are_never_run_in_part():
    assert next(experiment("tilted").walk(first=8)).x.shape == (64, 2)
    assert next(experiment("pull").walk(first=8)).x.shape == (8, 2)
    assert "intervals" not in experiment("tilted", n=512).run("cpu").metrics()
    assert "intervals" in experiment("pull", n=512).run("cpu").metrics()


def test_paths_follow_their_ancestors(tmp_path):
    """Each step of a path, from its ancestor, is one of the sampler's: nothing jumps further than noise goes."""
    run = experiment("tilted", params={"lam": 8.0}, n=256, steps=24).run("cpu")
    assert run.ancestors is not None
    assert len(run.ancestors[12].unique()) < 250, "points were resampled"
    paths = run.paths()
    assert torch.equal(paths[-1], run.x[-1])
    rows = torch.arange(256)
    for step in range(23, -1, -1):
        rows = run.ancestors[step][rows]
        assert torch.equal(paths[step], run.x[step][rows])
    # From 3 sigma a step of the last half moves by no more than a few standard deviations of its noise.
    sigma = run.sigma.double()
    furthest = (paths[13:] - paths[12:-1]).norm(dim=-1).amax(1)
    assert (furthest < 8 * sigma[12:-1]).all()
    run.save(tmp_path / "run.npz")
    assert torch.equal(tg.Result.load(tmp_path / "run.npz").paths(), paths)


def test_following_by_hand():
    x = torch.arange(9.0).reshape(3, 3, 1)
    origins = [torch.tensor([1, 1, 2]), None]
    assert follow(x, origins)[:, :, 0].tolist() == [[1, 1, 2], [3, 4, 5], [6, 7, 8]]
    assert follow(x, [None, None]) is x


class Moving(Rule):
    """Begins at the origin, and looks at where it arrives."""

    def begin(self, at, generator):
        return torch.zeros_like(at.x), None

    def guide(self, at, memory):
        return Guided(at.denoised(), trace={"level": at.x.new_full((len(at.x),), at.next_sigma)})

    def after_step(self, step, memory, generator):
        if step.sigma_next > 0:
            there = step.evaluate(step.x_next)
            assert (there.sigma, there.step_sigma) == (step.sigma_next, step.sigma_next)
            torch.testing.assert_close(there.denoised(), PAIR.field(None).denoise(step.x_next, step.sigma_next))
        return super().after_step(step, memory, generator)


def test_a_rule_moves_the_start_and_evaluates_where_it_arrives():
    x, levels = torch.randn(8, 2, dtype=W), torch.tensor([2.0, 1.0, 0.0], dtype=W)
    steps = list(trajectory(Moving(), {"main": PAIR.field(None)}, sampler("euler"), x, levels, torch.Generator()))
    assert torch.equal(steps[0].x, torch.zeros(8, 2, dtype=W))
    assert [float(s.trace["level"][0]) for s in steps[1:]] == [1.0, 0.0]
    assert steps[-1].nfe == 2 + 1, "one more at the only level arrived at above 0"


# What an evaluation knows


class Adaptive(Rule):
    """Looks at the union only for points on the right."""

    def guide(self, at, memory):
        right = at.x[:, 0] > 0
        guide = at.denoised("uncond", where=right)
        return Guided(torch.where(right[:, None], 2 * at.denoised() - guide, at.denoised()))


def test_evaluations_are_counted_for_each_trajectory():
    x, levels = torch.randn(64, 2, dtype=W), torch.tensor([2.0, 1.0, 0.5, 0.0], dtype=W)
    fields = {"main": PAIR.field("left"), "uncond": PAIR.field(None)}
    steps = list(trajectory(Adaptive(), fields, sampler("euler"), x, levels, torch.Generator()))
    expected = sum(1 + (s.x[:, 0] > 0).long() for s in steps[:-1])
    assert torch.equal(steps[-1].cost.per_trajectory(64), expected)
    assert steps[-1].nfe == pytest.approx(float(expected.double().mean()))
    assert 3 < steps[-1].nfe < 6
    assert steps[-1].x.isfinite().all()
    plain = list(trajectory(tg.rule("cfg", w=2.0), fields, sampler("euler"), x, levels, torch.Generator()))
    right = x[:, 0] > 0
    torch.testing.assert_close(steps[1].x[right], plain[1].x[right], rtol=0, atol=1e-12)  # fewer points, other sums


def test_labels_and_other_labels():
    x = torch.randn(16, 2, dtype=W)
    for left in (PAIR.field("left"), tg.load_model("two-gaussians/main@left")):
        at = Evaluation(Scene({"main": left}, (0.5, 0.0), PAIR, "left"), x, 0.5)
        assert (at.label, at.labels, at.other_labels) == ("left", ("left", "right"), ("right",))
        other = PAIR.field("right") if left is PAIR.field("left") else tg.load_model("two-gaussians/main@right")
        torch.testing.assert_close(at.denoised_as("right"), other.denoise(x, 0.5))
        assert at.cost.evaluations == 1
    alone = Evaluation(
        Scene({"main": tg.load_model("fractal/main")}, (0.5, 0.0), tg.load_dataset("fractal"), "A"), x, 0.5
    )
    with pytest.raises(InputError, match="label 'B': the field models one class only, expected exact or a label-cond"):
        alone.denoised_as("B")
    with pytest.raises(InputError, match="labels: this run has no dataset"):
        _ = Evaluation({}, x, 0.5).labels


def test_posteriors_and_densities():
    """The posterior is the dataset's; its gradient that of autograd; a temperature divides the logits."""
    x = torch.randn(16, 2, dtype=W, requires_grad=True)
    at = Evaluation(Scene({"main": PAIR.field("left")}, (0.5, 0.0), PAIR, "left"), x.detach(), 0.5)
    torch.testing.assert_close(at.posterior(), PAIR.posterior(x, 0.5).detach())
    (exact,) = torch.autograd.grad(PAIR.posterior(x, 0.5)[:, 0].log().sum(), x)
    torch.testing.assert_close(at.posterior_gradient("left"), exact)
    torch.testing.assert_close(at.log_density(), PAIR.field("left").log_density(x.detach(), 0.5))
    v = torch.randn(16, 2, dtype=W)
    expected = v + 0.25 * (at.hessian() @ v[..., None])[..., 0]
    torch.testing.assert_close(at.jvp(v), expected)
    assert (at.cost.evaluations, at.cost.gradients) == (2, 1 + 2 + 1)

    priors = {"left": 0.5, "right": 0.5}
    soft = ExactClassifier({name: PAIR.field(name) for name in PAIR.labels}, priors, 3.0)
    odds = PAIR.posterior(x, 0.5).log().diff()[:, 0] / 3
    torch.testing.assert_close(soft.log_posterior(x, 0.5).diff()[:, 0], odds)
    (softer,) = torch.autograd.grad(soft.log_posterior(x, 0.5)[:, 1].sum(), x)
    torch.testing.assert_close(soft.gradient(x.detach(), 0.5, "right"), softer)


# Ensembles and fields as objects


def test_a_mean_of_fields_agrees_with_itself():
    mean = MeanField([PAIR.field("left"), PAIR.field(None), PAIR.field("right")])
    x = torch.randn(16, 2, dtype=W, requires_grad=True)
    (score,) = torch.autograd.grad(mean.log_density(x, 0.4).sum(), x)
    points = x.detach()
    torch.testing.assert_close(mean.score(points, 0.4), score)
    torch.testing.assert_close(mean.denoise(points, 0.4), points + 0.16 * score)
    rows = torch.func.vmap(torch.func.hessian(lambda p: mean.log_density(p, 0.4)))(points)
    torch.testing.assert_close(mean.hessian(points, 0.4), rows)
    v = torch.randn(16, 2, dtype=W)
    torch.testing.assert_close(mean.jvp(points, 0.4, v), (rows @ v[..., None])[..., 0])


def test_a_mean_of_networks_is_a_field_of_an_experiment():
    """As autoguidance by hand, and at the price of three evaluations."""
    members = ["fractal/weak", "fractal/main", "fractal/weak"]
    e = tg.Experiment(
        "fractal", "A", "fractal/main", weak=f"mean({', '.join(members)})", rule="autoguidance", n=64, steps=4
    )
    run = e.run("cpu")
    assert run.nfe == 7 * 4
    assert e.build_field("weak").evaluations == 3
    w = tg.rule("autoguidance").w
    by_hand = tg.Experiment("fractal", "A", "fractal/main", weak="fractal/weak", rule="autoguidance",
                            params={"w": 1 + (w - 1) * 2 / 3}, n=64, steps=4)  # fmt: skip
    torch.testing.assert_close(run.x[-1], by_hand.run("cpu").x[-1], rtol=0, atol=2e-4)


def test_a_field_of_ones_own_is_run_and_not_written():
    class Shifted(tg.Field):
        dim = 2

        def log_density(self, x, sigma):
            return PAIR.field("left").log_density(x - 0.5, sigma)

        def score(self, x, sigma):
            return PAIR.field("left").score(x - 0.5, sigma)

        def hessian(self, x, sigma):
            return PAIR.field("left").hessian(x - 0.5, sigma)

    mine = Shifted()
    e = tg.Experiment("two-gaussians", "left", "exact", fields={"uncond": mine}, rule="cfg", n=32, steps=4)
    assert e == tg.Experiment("two-gaussians", "left", "exact", uncond=mine, rule="cfg", n=32, steps=4)
    assert "uncond=Shifted" in repr(e)
    assert e.run("cpu").x.isfinite().all()
    with pytest.raises(InputError, match="field 'uncond': a Shifted object cannot be written, expected a reference"):
        e.to_json()
    mine.dim = 3
    with pytest.raises(InputError, match="uncond 'Shifted': of dimension 3, expected 2 for two-gaussians"):
        e.build_fields()


def test_fields_are_recorded_as_resolved():
    e = tg.Experiment("fractal", "A", rule="autoguidance")
    assert dict(e.fields) == {"main": "fractal/main", "weak": "fractal/weak"}
    assert e == tg.Experiment("fractal", "A", "fractal/main", weak="fractal/weak", rule="autoguidance")
    assert json.loads(e.to_json())["fields"] == {"main": "fractal/main", "weak": "fractal/weak"}
    old = {"dataset": "fractal", "label": "A", "main": "fractal/main", "uncond": None, "weak": "exact", "rule": "cfg"}
    read = tg.Experiment.from_json(json.dumps(old))
    assert dict(read.fields) == {"main": "fractal/main", "uncond": "fractal/uncond", "weak": "exact"}
    assert read.references() == {"main": "fractal/main", "uncond": "fractal/uncond"}


def test_one_field_in_two_roles_is_a_warning(tmp_path, capsys):
    warned = "cfg: main and uncond are the same field, exact@union"
    e = tg.Experiment("fractal", None, rule="cfg", n=8, steps=2)
    assert e.warnings() == [warned]
    assert tg.Experiment("fractal", "A", rule="cfg").warnings() == []
    assert tg.Experiment("two-gaussians", "left", rule="cfg").warnings() == []
    same = tg.Experiment("two-gaussians", None, main="two-gaussians/main", rule="cfg")
    assert same.warnings() == ["cfg: main and uncond are the same field, two-gaussians/main@union"]
    assert main(["sample", "--rule", "cfg", "--n", "8", "--steps", "2", "-o", str(tmp_path / "run.npz")]) == 0
    assert capsys.readouterr().err == f"toyguide: warning: {warned}\n"


def test_they_say_what_they_are_in_a_line():
    e = tg.Experiment("fractal", "A", rule="cfg", n=8, steps=2)
    fields = "main=fractal/main, uncond=fractal/uncond"
    assert repr(e) == f"<Experiment fractal A: cfg(w=4.0), {fields}, 2 heun steps, n=8, seed=0>"
    assert repr(e.run("cpu")).startswith("<Result of cfg(w=4.0): 8 points, 2 steps, 6 evaluations, 0.")


def test_a_role_that_no_rule_has_is_refused():
    with pytest.raises(InputError, match=r"unknown role of a field 'waek2': .*did you mean 'weak2'\?"):
        tg.Experiment("fractal", "A", "exact", rule="two-weak", fields={"waek2": "exact"})
    e = tg.Experiment("fractal", "A", "exact", weak="exact+noise:0.3", rule="cfg")
    assert e.warnings() == ["cfg: the field for weak is not used"]


def test_a_rule_that_is_edited_has_other_rows(tmp_path, monkeypatch):
    """The same experiment under another rule of its name is another one to whoever keeps results."""
    text = (EXAMPLES / "pull.py").read_text()
    identities = []
    for i, strength in enumerate(("", " * 2")):
        folder = tmp_path / str(i)
        folder.mkdir()
        (folder / "pull.py").write_text(text.replace("at.sigma**2", f"at.sigma**2{strength}"))
        monkeypatch.setenv("TOYGUIDE_RULES", str(folder))
        identities.append(identity(experiment("pull")))
    assert identities[0] != identities[1]
