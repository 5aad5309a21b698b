"""Probes of runs: CFG's own scale, an orthogonal residual, terms and costs, against what the rules' formulas say."""

from __future__ import annotations

import json

import pytest
import torch
from helpers import seeded

import toyguide as tg
from toyguide.cli import main
from toyguide.errors import InputError
from toyguide.guidance import Rule
from toyguide.guidance.base import DEFINED
from toyguide.probes import effective_scale, probe


def experiment(rule="cfg", **settings):
    given = {"dataset": "two-gaussians", "label": "left", "main": "exact", "n": 64, "steps": 8, "rule": rule}
    return tg.Experiment(**{**given, **settings})


@pytest.mark.parametrize("w", [0.5, 1.0, 3.7])
def test_cfgs_scale_is_its_weight_and_nothing_is_left(w):
    found = probe(experiment(params={"w": w}, uncond="exact@union"))
    known = found.scale.isfinite()
    assert known[0].all()
    assert known.double().mean() > 0.4, "where the class is certain the gap vanishes"
    assert (found.scale - w)[known].abs().max() < 5e-3  # of float32 runs, see _ROUNDING
    assert found.residual[known].max() < 1e-5


def test_a_residual_is_orthogonal_and_completes_the_push():
    g = seeded(0)
    push, gap = (torch.randn(50, 5, generator=g, dtype=torch.float64) for _ in range(2))
    scale, residual = effective_scale(push, gap)
    torch.testing.assert_close((residual * gap).sum(-1), torch.zeros(50, dtype=torch.float64), rtol=0, atol=1e-12)
    torch.testing.assert_close((scale - 1)[:, None] * gap + residual, push)


def test_there_is_no_scale_without_a_gap():
    scale, residual = effective_scale(torch.ones(3, 2), torch.zeros(3, 2))
    assert scale.isnan().all()
    assert torch.equal(residual, torch.ones(3, 2))


def test_terms_are_the_gaps_of_the_fields_and_point_where_the_rule_pushes():
    found = probe(experiment("autoguidance", params={"w": 3.0}, weak="exact+noise:0.3"))
    assert set(found.terms) == {"weak"}
    torch.testing.assert_close(found.push, 2 * found.terms["weak"], rtol=1e-4, atol=1e-5)
    cosines = found.cosines["weak"][found.push > 1e-3]
    torch.testing.assert_close(cosines, torch.ones_like(cosines), rtol=0, atol=1e-4)


def test_the_rules_evaluations_are_counted_and_the_probes_own_are_not():
    found = probe(experiment(sampler="euler"))
    assert found.nfe.tolist() == [2.0 * (i + 1) for i in range(8)]


def test_linear_rules_have_no_curl_and_sfg_has():
    assert probe(experiment(), first=16, curl=True).curl.abs().max() < 1e-6
    assert probe(experiment("sfg", dataset="fractal", label=None), first=16, curl=True).curl.abs().max() > 1e-3


def test_the_posterior_is_the_exact_one():
    e = experiment(rule="none")
    found, data = probe(e), e.data
    x = e.run("cpu").x[:-1].double()
    expected = torch.stack(
        [data.posterior(x[i], float(s))[:, data.labels.index("left")] for i, s in enumerate(found.sigma)]
    )
    torch.testing.assert_close(found.posterior, expected, rtol=0, atol=1e-5)


def test_a_curl_of_points_that_affect_each_other_is_refused():
    class Together(Rule):
        key, interacts = "together", True

    with pytest.raises(InputError, match="affect each other"):
        probe(experiment("together"), curl=True)
    DEFINED.pop("together")


def test_the_command_prints_a_row_for_each_step(tmp_path, capsys):
    path = str(tmp_path / "run.npz")
    experiment(params={"w": 2.5}).run("cpu").save(path)
    assert main(["probe", path, "--json", "--first", "16"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["step"] for row in rows] == list(range(8))
    assert rows[0]["scale"] == pytest.approx(2.5, abs=5e-3)
    assert main(["probe", path]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 9
    assert lines[0].split()[:3] == ["step", "sigma", "nfe"]
    assert main(["probe", path, "--first", "0"]) == 2
