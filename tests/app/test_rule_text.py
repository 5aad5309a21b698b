"""What the page says of a rule, and the values that it sets."""

import asyncio

import pytest

import toyguide as tg
from toyguide_apps.explorer_page.controls import PanelCard
from toyguide_apps.explorer_page.rule_text import RuleText, equality
from toyguide_apps.explorer_page.state import ExplorerState

LIMITS = [(key, limit) for key, cls in tg.rules().items() for limit in cls.limits]


def test_a_limit_in_words():
    assert equality(tg.rules()["apg"].limits[0]) == "Equals CFG at eta = 1, beta = 0, r = inf"


@pytest.mark.parametrize(("key", "limit"), LIMITS, ids=lambda value: value if isinstance(value, str) else value.rule)
def test_a_click_sets_the_values_and_keeps_the_others(key, limit):
    state = ExplorerState()
    state.set({"rule": key})
    text = PanelCard(state)._text
    before = state.panels[1].rule.values()
    button = text._limits[tg.rules()[key].limits.index(limit)]
    assert button.label == equality(limit)
    button.clicks += 1
    after = state.panels[1].rule.values()
    assert after == {k: v for k, v in (before | dict(limit.params)).items() if k in after}
    assert set(after) >= set(limit.params)


def test_formula_summary_source_fields_and_cost(monkeypatch):
    monkeypatch.setattr("panel.state.execute", lambda act, **_: asyncio.run(act()))
    text = RuleText(ExplorerState())
    text.show(tg.rule("cfg"))
    said = text._about.object
    for part in ("2 evaluations in a first-order step", "2207.12598", "<code>main</code>", "<code>uncond</code>"):
        assert part in said
    assert tg.rules()["cfg"].summary.partition("'")[0] in said
    assert "D_" in text._formula.object
    text.show(tg.rule("none"))
    assert "1 evaluation in" in text._about.object
    assert "uncond" not in text._about.object
