"""What runs on a GPU without waiting for it, on torch's meta device: it has no numbers, so whatever reads one fails."""

from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from toyguide import load_dataset, load_model, rules, samplers
from toyguide.datasets.checkpoints import load_learned
from toyguide.datasets.references import natural_reference, resolve
from toyguide.fields import NoisierField, degradations
from toyguide.fields.networks import EnergyMLP
from toyguide.guidance import Scene
from toyguide.samplers import SAMPLERS
from toyguide.training import LOSSES, LabelledDraws, PowerFunctionEMA, TrainSettings, _descend, draw_batch

META = torch.device("meta")
READS = ("_local_scalar_dense", "nonzero", "is_nonzero", "equal", "unique", "masked_select", "bincount")


class NoWaiting(TorchDispatchMode):
    """Fails where the host would wait for the device: at a number read, a choice by a mask, a copy between devices."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        assert not name.startswith(READS), name
        if name in ("index", "index_put", "index_put_"):
            assert not any(i is not None and i.dtype == torch.bool for i in args[1]), name
        result = function(*args, **kwargs or {})
        devices = {t.device for t in (*args, result) if isinstance(t, torch.Tensor) and t.ndim and t.numel()}
        assert name not in ("_to_copy", "copy_") or len(devices) <= 1, name
        return result


def test_the_mode_sees_what_waits():
    x = torch.zeros(3)
    waiting = (lambda: float(x[0]), lambda: x.nonzero(), lambda: x[x > 0], lambda: torch.zeros(3).to(META))
    for wait in waiting:
        with pytest.raises(AssertionError), NoWaiting():
            wait()


def fields():
    data, network = load_dataset("fractal"), load_model("fractal/main")
    mixture = data.field("A")
    return {
        "mixture": mixture,
        "round mixture": load_dataset("two-gaussians").field(),
        "noisier": NoisierField(mixture, 0.2),
        "network": network.to(META),
    }


@pytest.mark.parametrize("kind", ["mixture", "round mixture", "noisier", "network"])
@pytest.mark.parametrize("own", [False, True])
def test_fields_do_not_wait(kind, own):
    field, x = fields()[kind], torch.empty(64, 2, device=META)
    sigma = torch.empty(64, device=META) if own else 0.3
    v = torch.empty(64, 2, device=META)
    field.score(x, sigma)  # the constants are copied to the device at the first call
    with NoWaiting():
        for name in ("log_density", "score", "denoise", "hessian"):
            assert getattr(field, name)(x, sigma).device == META
        assert field.jvp(x, sigma, v).device == META


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("conditional", [False, True])
@pytest.mark.parametrize("dataset", ["fractal", "simplex16"])
def test_a_training_step_does_not_wait(dataset, conditional, loss, monkeypatch):
    """From the draw to the average."""
    settings = TrainSettings(dataset, conditional=conditional, loss=loss, width=16, layers=2, batch=64)
    data = settings.data
    network = EnergyMLP(data.dim, 16, 2, data.sigma_data, data.labels if conditional else ()).to(META)
    average, weight = PowerFunctionEMA(network, 0.01), torch.empty((), device=META)
    for name in ("rand", "randn"):  # no generator is of this device
        drawn = getattr(torch, name)
        monkeypatch.setattr(torch, name, lambda *shape, generator, drawn=drawn, **how: drawn(*shape, **how))
    generator = SimpleNamespace(device=META)
    draw = LabelledDraws(settings, data, network) if conditional else partial(draw_batch, settings, network)
    draw(generator)  # the constants are copied to the device at the first call
    with NoWaiting():
        loss = _descend(network, draw(generator))
        network.normalize()
        average.update(network, weight)
    assert loss.device == META
    assert all(p.grad is not None for p in network.parameters())


WAITING = {
    **dict.fromkeys(("adaptive-guidance", "gfcg"), "evaluates fields at some of the points, and has to know at which"),
    **dict.fromkeys(("fkc", "fk-steering"), "resamples by its weights, which the host reads"),
    "ideal": "makes its target on the CPU, once in a run",
    "svdd": "chooses among its candidates by numbers drawn on the CPU",
    "linear-ag": "finds its coefficients by what its fields are worth at a few points, once in a run",
}


@pytest.mark.parametrize("method", SAMPLERS)
@pytest.mark.parametrize("key", [key for key in rules() if key not in WAITING])
def test_no_step_of_a_rule_waits(key, method, monkeypatch):
    """From the second state on: a rule that draws directions at the start copies them to the device once."""
    if rules()[key].first_order and samplers.sampler(method).order > 1:
        pytest.skip("needs a first-order sampler")
    x = torch.empty(64, 2, device=META)
    monkeypatch.setattr(samplers, "noise_of", lambda *_: lambda: torch.empty_like(x))  # no generator is of this device
    # Nor are the random numbers of dropout, which a GPU draws itself.
    monkeypatch.setattr(degradations, "_generator", lambda seed, sigma, device: SimpleNamespace(device=device))
    drawn = torch.rand
    monkeypatch.setattr(torch, "rand", lambda *shape, generator, **how: drawn(*shape, **how))
    stems = {"main": "internal", "uncond": "uncond", "weak": "weak", "adapter": "adapter"}
    networks = {role: f"fractal/{stem}" for role, stem in stems.items()}
    roles = rules()[key].roles()
    fields = {name: load_learned(networks[name]).to(META) for name in {"main": None, **roles} if name in networks}
    fields |= {name: _partner(role) for name, role in roles.items() if name not in networks or role.kind == "exact"}
    levels = torch.tensor([2.0, 1.0, 0.5, 0.0])
    scene = Scene(fields, (), load_dataset("fractal"), "A")

    def walking():
        return samplers.trajectory(rules()[key](), scene, samplers.sampler(method), x, levels, torch.Generator())

    list(walking())  # copies the exact fields' constants to the device
    walk = walking()
    next(walk)
    with NoWaiting():
        steps = list(walk)
    assert [s.x.device for s in steps] == [META] * 3


def _partner(role):
    """The natural partner of an exact main."""
    data = load_dataset("fractal")
    return resolve(natural_reference(role, "exact", data, "A"), data, "A", role)
