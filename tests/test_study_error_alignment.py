"""The study of the errors of a network and its guides, on exact fields at raised noise levels."""

import numpy as np
import pytest
import torch
from helpers import seeded
from study_rows import ExactShop, measured, rows_like

from toyguide import rule
from toyguide.experiment import Experiment
from toyguide.geometry.regions import Region, regions
from toyguide.guidance.probe import guided_at
from toyguide.metrics import hdr_threshold
from toyguide.studies import Plan
from toyguide.studies.claims import error_alignment as aligned
from toyguide.studies.claims.shared import fractal_networks

N = 128
STEP = 21
FIELDS = {"main": "exact+noise:0.1", "weak": "exact+noise:0.2", "uncond": "exact@union+noise:0.3"}


class RaisedShop(ExactShop):
    """A workshop whose networks are exact fields at raised noise levels."""

    @staticmethod
    def exact(name):
        if name.startswith("mean("):
            return f"mean({', '.join(RaisedShop.exact(part) for part in name[5:-1].split(', '))})"
        role = "uncond" if "-union-" in name else "weak" if "-w32-" in name else "main"
        return FIELDS[role]


@pytest.fixture
def shop(tmp_path):
    return RaisedShop(tmp_path)


@pytest.mark.parametrize(("guide", "key", "w"), [("weak", "autoguidance", 3.0), ("uncond", "cfg", 4.0)])
def test_what_is_measured_is_what_the_rule_does(shop, guide, key, w):
    """The best weight is the vertex of the rule's own squared error, the shares are those of its guided points."""
    found = measured("error-alignment", shop, guide=guide, place="data", step=STEP)
    e = Experiment("fractal", "A", rule=key, params={"w": w}, n=N, **{k: FIELDS[k] for k in ("main", guide)})
    sigma = float(e.levels()[STEP])
    exact = e.data.field("A")
    x = exact.sample(N, sigma, seeded(0)).double()
    truth = exact.denoise(x, sigma)

    def error(weight):
        return guided_at(rule(key, w=weight), e.scene(), x, sigma)["guided"] - truth

    weights = np.array([0.5, 1.0, 1.5, 2.0])
    a, b, _ = np.polyfit(weights, [float(error(v).square().sum()) for v in weights], 2)
    assert found["sigma"] == pytest.approx(sigma, rel=1e-5)
    assert found["best_weight"] == pytest.approx(-b / (2 * a), rel=1e-5)
    before = error(1.0).norm(dim=-1)
    assert found["main_size"] == pytest.approx(float(before.square().mean().sqrt()), rel=1e-5)
    assert found["guide_size"] == pytest.approx(float(error(0.0).square().sum(-1).mean().sqrt()), rel=1e-5)
    less = error(1 + 1e-6).norm(dim=-1) < before
    assert found["shortened"] == pytest.approx(float(less.double().mean()), rel=1e-5)
    assert found["shortened_at"] == pytest.approx(float((error(w).norm(dim=-1) < before).double().mean()), rel=1e-5)
    where = regions(exact, x, sigma, hdr_threshold(e.data, "A", sigma))
    for region in Region:
        here = less[where == region].double()
        assert found[f"share_{region.name.lower()}"] == pytest.approx(len(here) / N, rel=1e-5)
        if len(here):
            assert found[f"shortened_{region.name.lower()}"] == pytest.approx(float(here.mean()), rel=1e-5, abs=1e-9)
    assert sum(found[f"share_{depth}"] for depth in aligned._DEPTHS) == pytest.approx(1, rel=1e-5)


def test_equal_networks_have_their_own_mean(shop):
    one, mean = (measured("error-alignment", shop, guide=g, place="data", step=STEP) for g in ("weak", "mean"))
    assert one == pytest.approx(mean, rel=1e-4, nan_ok=True)


def test_the_points_are_those_that_the_runs_visit(shop):
    e = aligned._guided(shop.plan, 0, "weak")
    runs = {
        "unguided": Experiment("fractal", "A", FIELDS["main"], n=N),
        "guided": Experiment("fractal", "A", FIELDS["main"], weak=FIELDS["weak"], rule="autoguidance", n=N),
    }
    for place, run in runs.items():
        visited = aligned._points(shop, e, place, STEP)
        torch.testing.assert_close(visited, run.run("cpu").x[STEP])
    data = aligned._points(shop, e, "data", STEP)
    torch.testing.assert_close(data, e.data.field("A").sample(N, float(e.levels()[STEP]), seeded(0)))


def test_ranks_follow_any_rising_function():
    a = torch.rand(50, generator=seeded())
    assert aligned._rank_correlation(a, a**3) == pytest.approx(1)
    assert aligned._rank_correlation(a, -a.exp()) == pytest.approx(-1)
    far = torch.cat([a, torch.tensor([torch.nan, torch.inf])])
    assert aligned._rank_correlation(far, far) == pytest.approx(1)


def test_an_ensemble_differs_in_its_seeds_alone():
    plan = Plan()
    members = fractal_networks.weak_ensemble(plan, 107, 3)
    assert [m.seed for m in members] == [107, 1107, 2107]
    assert members[0] == fractal_networks.weak(plan, 107)
    assert len({(m.width, m.iterations, m.label, m.dataset) for m in members}) == 1


def test_only_low_noise_on_data_decides():
    """Rows at high noise, and of visited points, may say anything."""

    def made(key, z):
        counted = key["place"] == "data" and key["step"] >= 15
        return {"shortened": 0.6 + 0.01 * key["step"] if counted else -9.0}

    rows = rows_like("error-alignment", made)
    assert aligned._at_low_noise(rows, "shortened") == pytest.approx([0.6 + 0.01 * 21] * 5)
    levels = {float(f"{s:.3g}") for s in Experiment("fractal", "A").levels()[list(aligned._LOW)]}
    assert max(levels) < 0.5
    assert min(levels) > 0.01
