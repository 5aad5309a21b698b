"""The study of gradient-free classifier guidance: one network in every role, and evaluations as its settings say."""

from __future__ import annotations

import pytest
from study_rows import ExactShop, measured

from toyguide.studies import Plan, study
from toyguide.studies.workshop import trained

NAME = "gfcg-frequency-and-threshold"


def test_one_network_of_the_seed_fills_every_role():
    for cell in study(NAME).cells(Plan(seeds=2)):
        (need,) = cell.needs
        assert need.seed == cell.key["seed"] == cell.run.seed
        fields = dict(cell.run.fields)
        assert fields.pop("classifier", "posterior") == "posterior"
        assert fields == dict.fromkeys(("main", "uncond", "guide"), trained(need))


@pytest.fixture(scope="module")
def evaluations(tmp_path_factory):
    shop = ExactShop(tmp_path_factory.mktemp("networks"))

    def found(way, value, period=1):
        return measured(NAME, shop, way=way, value=value, period=period)["nfe"]

    return found


def test_the_classifier_decides_how_many_points_are_guided(evaluations):
    """32 Heun steps make 63 evaluations of each field; what is asked in the last steps only adds to these steps."""
    assert evaluations("unguided", 0.0) == 63
    assert evaluations("cfg", 2.0) == 2 * 63
    each = evaluations("denoised", 0.9)
    assert 63 < evaluations("denoised", 0.05) < each < evaluations("noisy", 0.9) < 2 * 63
    assert each <= evaluations("denoised", 1.0)
