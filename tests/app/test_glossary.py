"""The explorer's words: nothing that is shown is left out, and what they say of numbers is so."""

import re

import pytest

from toyguide import Experiment, load_dataset, rule
from toyguide.guidance import ROLES, rules
from toyguide.metrics import METRICS, reference
from toyguide_apps.explorer_page.glossary import glossary
from toyguide_apps.explorer_page.views import table

WANTED = """
    sigma main uncond weak natural-partner guidance-weight push score denoised region branch outlier stray coverage
    dropped-mass tips class-leak log-density trimmed-w2 saddle upward-curving-direction seed sampler step interval
    evaluation plane layers
"""


def test_every_word_has_an_entry():
    assert set(WANTED.split()) <= set(glossary())
    assert {e.role for e in glossary().values()} - {""} == set(ROLES)
    explained = {e.metric for e in glossary().values()} - {""}
    assert explained <= set(METRICS)
    assert {*table._SHOWN, "nfe"} <= explained


@pytest.mark.parametrize("key", list(glossary()))
def test_an_entry_is_one_or_two_plain_sentences(key):
    entry = glossary()[key]
    assert entry.term
    assert entry.text.endswith(".")
    assert 1 <= len(re.findall(r"[.:](?= [A-Z]|$)", entry.text)) <= 3
    assert len(entry.text) < 260


def test_an_entry_says_the_thresholds_of_its_metric():
    """Every number of a metric's entry is in the metric's own description."""
    words = ("two", "a tenth", "a few hundred")
    for entry in glossary().values():
        if not entry.metric:
            continue
        doc = METRICS[entry.metric].doc.lower()
        for number in re.findall(r"\d+\.?\d* %", entry.text):
            assert number in doc, entry.term
        for word in words:
            if re.search(rf"\b{word}\b", entry.text.lower()) and entry.metric != "nfe":
                assert word in doc, entry.term


def test_what_is_said_of_exact_samples_and_of_weights_is_so():
    data = load_dataset("two-gaussians")
    exact = reference(data, None, 20_000, seed=0)
    assert exact["outliers"] == pytest.approx(0.01, abs=0.003)
    assert exact["far_outliers"] == pytest.approx(0.001, abs=0.001)
    assert rules()["cfg"].unguided == {"w": 1.0}
    assert rules()["autoguidance"].unguided == {"w": 1.0}
    assert rules()["sfg"].unguided == {"w": 0.0}
    e = Experiment("two-gaussians", None, "exact", weak="exact+noise:0.2", rule="autoguidance", n=8, steps=4)
    plain = Experiment("two-gaussians", None, "exact", n=8, steps=4)
    assert e.run("cpu").nfe == 2 * plain.run("cpu").nfe
    assert rule("autoguidance").needs == ("main", "weak")
