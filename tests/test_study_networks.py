"""The studies of the networks themselves: the two basins of their training, and what of weak ones guides."""

from __future__ import annotations

import re
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from helpers import seeded
from study_rows import ExactShop, measured, metrics, rows_like

from toyguide.datasets import load_dataset
from toyguide.experiment import Experiment
from toyguide.fields.networks import EnergyMLP
from toyguide.guidance import Evaluation, Scene
from toyguide.studies import Plan, study
from toyguide.studies.claims import autoguidance_random_and_systematic as parts
from toyguide.studies.claims import training_two_basins as basins
from toyguide.training import train

N = 128


class MeansShop(ExactShop):
    """As its base, within means too."""

    def located(self, experiment):
        fields = {
            role: re.sub(r"networks/[^,)]+", lambda name: self.exact(name[0]), str(reference))
            for role, reference in experiment.fields.items()
        }
        return replace(experiment, fields=fields)


# --- two basins ---------------------------------------------------------------------------------------------------


def test_gain_loss_and_strays_of_a_network(tmp_path, monkeypatch):
    """A network that is a Gaussian: its loss from the formula in float64, and strays that were put there."""
    data = load_dataset("fractal")
    gaussian = EnergyMLP(2, 4, 1, data.sigma_data, (), seeded(), bounded=True)
    gaussian.gain.data.fill_(0.0)
    shop = ExactShop(tmp_path, gaussian)
    x = data.field("A").sample(N, generator=seeded()).float()
    x[:5] += 4.0
    x[5] = torch.nan
    monkeypatch.setattr(shop, "run", lambda experiment: SimpleNamespace(x=x[None]))
    found = measured("training-two-basins", shop, kind="weak", form="bounded")
    assert found["gain"] == 0
    assert found["strays"] == pytest.approx(6 / N)
    assert found["farthest"] == pytest.approx(float(x[:5].max()))

    g = seeded(1)
    clean = data.field("A").sample(1 << 17, generator=g)
    sigma = data.noise.sample(len(clean), g).double()[:, None]
    noisy = clean + sigma * torch.randn(clean.shape, generator=g, dtype=torch.float64)
    error = -noisy / (sigma**2 + data.sigma_data.double() ** 2) - data.field("A").score(noisy, sigma[:, 0])
    terms = (sigma**2 * error**2).sum(-1)
    # both are means over samples; 5 standard errors of the smaller one
    assert found["loss"] == pytest.approx(float(terms.mean()), abs=5 * float(terms.std()) / basins._HELD_OUT**0.5)


def test_both_forms_start_from_the_same_weights_and_see_the_same_batches():
    for kind in basins._KINDS:
        free, bounded = (basins._settings(Plan(), kind, form, 7) for form in ("free", "bounded"))
        assert (free.bounded, bounded.bounded) == (False, True)
        assert replace(free, bounded=True) == bounded


def test_the_figures_are_drawn_where_no_gain_is_positive(tmp_path):
    rows = rows_like("training-two-basins", lambda key, z: dict.fromkeys(("gain", "loss", "outliers", "strays"), -0.1))
    sheets = study("training-two-basins").sheets(rows, ExactShop(tmp_path))
    assert [s.label for s in sheets[1].panels[0].series] == ["free, negative", "bounded"]


# --- random and systematic errors ---------------------------------------------------------------------------------


def test_controls_on_exact_fields_are_the_exact_run(tmp_path, monkeypatch):
    """Where main and the guide are the same field nothing is pushed, and where main is exact nothing is replaced."""
    shop = MeansShop(tmp_path)
    monkeypatch.setattr(shop, "exact", lambda name: "exact" if name.startswith("networks/") else name)
    alone = metrics(Experiment("fractal", "A", main="exact", n=N))
    for kind in ("exact below", "exact pushed"):
        found = measured("autoguidance-random-and-systematic", shop, kind=kind)
        for name, value in found.items():
            assert value == pytest.approx(alone[name], rel=1e-3, abs=1e-3), (kind, name)


def test_controls_evaluate_what_they_are_called_by():
    data = load_dataset("fractal")
    fields = {"exact": data.field("A"), "main": data.field("B"), "weak": data.field()}
    x = data.field("A").sample(9, 0.05, seeded()).float()

    def guided(rule, sigma):
        return rule.guide(Evaluation(Scene(fields, (sigma, 0.0)), x, sigma, 0), None).denoised

    assert guided(parts._ExactBelow(), 0.02).equal(fields["exact"].denoise(x, 0.02))
    assert guided(parts._ExactBelow(), 0.04).equal(fields["main"].denoise(x, 0.04))
    exact, main, weak = (f.denoise(x, 0.1) for f in fields.values())
    torch.testing.assert_close(guided(parts._ExactPushed(), 0.1), exact + 2 * (main - weak))


def test_a_snapshot_is_the_main_network_on_its_way():
    own = replace(parts.main(Plan(), 5), width=8, layers=1, batch=64, iterations=16, ema=(0.05,))
    short = replace(own, iterations=4)
    *_, last = train(short, "cpu")
    expected = [p.tolist() for p in last.averages[0.05].parameters()]
    found = next(s for s in train(own, "cpu") if s.iteration == 4)
    assert [p.tolist() for p in found.averages[0.05].parameters()] == expected
    assert parts._snapshot(Plan(), 5) == replace(parts.main(Plan(), 5), iterations=512)


def test_guides_are_what_they_are_called():
    cells = {(c.key["guide"]): c for c in parts._cells(Plan(), 100) if c.key["kind"] == "guided" and c.key["w"] == 3.0}
    names = {guide: str(cell.run.fields["weak"]) for guide, cell in cells.items()}
    assert names["mean"].count(".safetensors") == 8
    assert names["mean"].startswith(f"mean({names['one']}")
    assert len(set(names.values())) == 5
    seeds = {guide: {need.seed for need in cell.needs[1:]} for guide, cell in cells.items()}
    assert seeds["snapshot"] == seeds["long"] == seeds["one"] == {100}
    assert seeds["stranger"] == {1100}
