"""Adapters against finite differences, what they are taught against CFG, and what they learn against both."""

from __future__ import annotations

import json

import pytest
import torch
from helpers import seeded

import toyguide as tg
from toyguide.cli import main
from toyguide.datasets.checkpoints import load_learned, model_names, save_model
from toyguide.datasets.references import resolve
from toyguide.distillation import DistillSettings, distill, guided_targets
from toyguide.errors import InputError
from toyguide.fields.adapters import Adapter

X = torch.randn(9, 2, generator=seeded(1), dtype=torch.float64)
SHORT = {"dataset": "two-gaussians", "label": "left", "main": "exact", "trajectories": 256, "steps": 8}
STEP = 1e-5


def make() -> Adapter:
    made = Adapter(2, 8, 2, torch.tensor([0.5, 0.7]), seeded(0)).requires_grad_(False)
    made.gain.fill_(0.8)
    return made


def differences(function):
    return torch.stack(
        [(function(X + e) - function(X - e)) / (2 * STEP) for e in STEP * torch.eye(2, dtype=X.dtype)], -1
    )


@pytest.mark.parametrize("w", [2.5, torch.linspace(1.5, 6.0, 9, dtype=torch.float64)[:, None]])
@torch.no_grad()
def test_an_adapter_is_a_field_with_its_gradient_and_hessian(w):
    adapter = make().at_weight(w)
    score = adapter.score(X, 0.4)
    torch.testing.assert_close(score, differences(lambda x: adapter.log_density(x, 0.4)), rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(
        adapter.hessian(X, 0.4), differences(lambda x: adapter.score(x, 0.4)), rtol=1e-6, atol=1e-7
    )
    each = w.flatten() if isinstance(w, torch.Tensor) else [w] * 9
    alone = [make().at_weight(float(w_i)).score(x, 0.4) for w_i, x in zip(each, X, strict=True)]
    torch.testing.assert_close(torch.stack(alone), score)


def test_at_weight_1_it_adds_nothing_whatever_it_has_learned():
    adapter, field = make(), tg.load_dataset("two-gaussians").field("left")
    assert not adapter.at_weight(1.0).score(X, 0.4).any()
    assert adapter.at_weight(1.01).score(X, 0.4).abs().min() > 0
    at = tg.guidance.Evaluation({"main": field, "adapter": adapter}, X, 0.4)
    assert torch.equal(tg.rule("agd", w=1.0).guide(at, None).denoised, field.denoise(X, 0.4))
    assert at.cost.evaluations == 1


@pytest.mark.parametrize("guided", [True, False])
def test_what_is_taught_is_what_cfg_adds_where_its_run_passes(guided):
    settings = DistillSettings(**SHORT, guided=guided)
    targets = guided_targets(settings)
    data = tg.load_dataset("two-gaussians")
    x, sigma, w = targets.x.double(), targets.sigma.double(), targets.w.double()
    left, union = data.field("left").denoise(x, sigma), data.field().denoise(x, sigma)
    torch.testing.assert_close(targets.added.double(), (w - 1) * (left - union), rtol=1e-3, atol=1e-4)
    assert targets.x.shape == (8 * 256, 2)
    assert targets.w.min() > 1
    assert targets.w.max() < 6
    assert abs(targets.w[:256].mean() - 3.5) < 5 * (25 / 12 / 256) ** 0.5
    # One trajectory is the run with its weight alone.
    e = settings.experiment()
    params = {"w": float(targets.w[7]) if guided else 1.0}
    run = tg.Experiment(e.dataset, "left", main="exact", rule="cfg", params=params, sampler="euler", steps=8, n=256)
    torch.testing.assert_close(targets.x[7::256], run.run("cpu").x[:-1, 7], rtol=1e-4, atol=1e-4)


def test_the_error_is_that_of_the_predicted_noise():
    targets = guided_targets(DistillSettings(**SHORT))
    still = make()
    still.gain.fill_(0.0)
    torch.testing.assert_close(targets.error(still), -targets.added / targets.sigma[:, None])


def test_a_short_distillation_learns_and_follows_the_seed(torch_device):
    settings = DistillSettings(**SHORT, iterations=150, batch=256, ema=(0.1,))
    held_out = guided_targets(DistillSettings(**SHORT, seed=9))

    def distilled(seed):
        *_, step = distill(
            DistillSettings(**SHORT, iterations=150, batch=256, ema=(0.1,), seed=seed), torch_device.type
        )
        return step.averages[0.1].cpu()

    adapter = distilled(0)
    assert settings.width**2 < 300
    left = held_out.error(adapter).square().sum() / (held_out.added / held_out.sigma[:, None]).square().sum()
    assert left < 0.3  # 1 for an adapter that adds nothing
    again, other = distilled(0), distilled(1)
    for a, b in zip(adapter.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(adapter.gain, other.gain)
    assert adapter.label == "left"


def test_files_references_and_the_command(tmp_path, capsys):
    path = tmp_path / "adapter.safetensors"
    flags = ["distill", "--dataset", "two-gaussians", "--label", "left", "--main", "exact", "--trajectories", "64"]
    flags += ["--iterations", "10", "--batch", "32", "--width", "8", "--device", "cpu", "-o", str(path), "--json"]
    assert main(flags) == 0
    report = json.loads(capsys.readouterr().out)
    data = tg.load_dataset("two-gaussians")
    read = resolve(str(path), data, "left", tg.rules()["agd"].roles()["adapter"])
    assert report["parameters"] == sum(p.numel() for p in read.parameters()) == 8 * 5 + 8 * 8 + 8 + 1
    assert read.label == "left"
    *_, step = distill(
        DistillSettings("two-gaussians", "left", "exact", trajectories=64, iterations=10, batch=32, width=8), "cpu"
    )
    for a, b in zip(read.parameters(), step.averages[0.010].parameters(), strict=True):
        assert torch.equal(a, b)
    save_model(step.averages[0.010], tmp_path / "again.safetensors", read.metadata["training"])
    assert (tmp_path / "again.safetensors").read_bytes() == path.read_bytes()

    e = tg.Experiment("two-gaussians", "left", main="exact", rule="agd", fields={"adapter": str(path)}, n=32, steps=4)
    assert e.run("cpu").nfe == tg.Experiment("two-gaussians", "left", main="exact", n=32, steps=4).run("cpu").nfe
    with pytest.raises(InputError, match="expected a field, not an adapter"):
        resolve(str(path), data, "left", "main")
    with pytest.raises(InputError, match="models class left, expected a field of class right"):
        resolve(str(path), data, "right", tg.rules()["agd"].roles()["adapter"])
    with pytest.raises(InputError, match="'exact': expected an adapter, made by toyguide distill"):
        resolve("exact", data, "left", tg.rules()["agd"].roles()["adapter"])
    with pytest.raises(InputError, match="adapter: two-gaussians has no trained network for this role"):
        tg.Experiment("two-gaussians", "left", rule="agd")
    with pytest.raises(InputError, match="trajectories = 0: expected at least 1"):
        DistillSettings(**SHORT | {"trajectories": 0})


# The bundled one


def test_the_bundled_adapter_follows_cfg_on_held_out_trajectories():
    assert model_names(kind="adapter") == ["fractal/adapter"]
    adapter = load_learned("fractal/adapter")
    settings = adapter.metadata["training"]["settings"]
    assert settings["guided"]
    parameters = [sum(p.numel() for p in load_learned(f"fractal/{n}").parameters()) for n in ("adapter", "main")]
    assert parameters[0] < 0.03 * parameters[1]
    held_out = guided_targets(DistillSettings("fractal", "A", seed=1000, trajectories=512))
    missed = (held_out.error(adapter) * held_out.sigma[:, None]).square().sum() / held_out.added.square().sum()
    assert missed.sqrt() < 0.36  # of D; 0.3 measured


def test_a_run_with_it_does_about_what_cfg_does():
    """Nearer to the run under CFG, trajectory by trajectory, than an unguided one is."""
    common = {"dataset": "fractal", "label": "A", "n": 512, "steps": 16}
    cfg, agd, plain = (
        tg.Experiment(**common, rule=rule, params=params).run("cpu").x[-1]
        for rule, params in (("cfg", {"w": 3.0}), ("agd", {"w": 3.0}), ("none", {}))
    )
    assert (agd - cfg).norm(dim=1).median() < 0.5 * (plain - cfg).norm(dim=1).median()
