"""How rules are found: files on the search path, and classes of this process."""

from __future__ import annotations

import pytest
import torch
from walks import RULES, walk

import toyguide as tg
from toyguide.errors import InputError
from toyguide.guidance import (
    Guided,
    Role,
    Rule,
    rules,
)
from toyguide.guidance.base import DEFINED

# Files on the search path

RULE_FILE = """
from toyguide.guidance import Guided, Rule
from toyguide.samplers import Step, sampler, trajectory

class Mine(Rule):
    key = "{key}"

    def guide(self, at, memory):
        return Guided(at.denoised("main"))
"""


@pytest.fixture
def search_path(tmp_path, monkeypatch):
    """A folder in TOYGUIDE_RULES."""
    monkeypatch.setenv("TOYGUIDE_RULES", str(tmp_path))
    yield tmp_path
    monkeypatch.undo()
    assert list(rules()) == RULES


def test_a_file_on_the_search_path_is_a_rule(search_path):
    (search_path / "mine.py").write_text(RULE_FILE.format(key="mine"))
    assert set(rules()) == {*RULES, "mine"}
    assert torch.equal(walk(tg.rule("mine"))[-1].x, walk(tg.rule("none"))[-1].x)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (RULE_FILE.format(key="cfg"), "mine.py: the rule name 'cfg' is taken"),
        (RULE_FILE.format(key="a") + RULE_FILE.format(key="a").replace("Mine", "Other"), "rule name 'a' is taken"),
        (
            RULE_FILE.replace("    key", "    needs = ('main', 'wek')\n    key"),
            "needs 'wek': expected one of main, uncond",
        ),
        ("import nothing_of_that_name", "mine.py: cannot be imported .ModuleNotFoundError"),
        ("class:", "mine.py: cannot be imported .SyntaxError"),
    ],
)
def test_a_wrong_file_on_the_search_path_is_named(search_path, text, complaint):
    (search_path / "mine.py").write_text(text)
    with pytest.raises(InputError, match=complaint):
        rules()


def test_a_wrong_search_path_is_named(search_path, monkeypatch):
    monkeypatch.setenv("TOYGUIDE_RULES", "/no/such/folder")
    with pytest.raises(InputError, match="TOYGUIDE_RULES: '/no/such/folder': expected a folder"):
        rules()


# Classes of this process


@pytest.fixture
def own_rules():
    """What is defined in a test is forgotten after it."""
    before = dict(DEFINED)
    yield
    DEFINED.clear()
    DEFINED.update(before)
    assert list(rules()) == RULES


def constant(name: str, value: float) -> type[Rule]:
    class Constant(Rule):
        key = name

        def guide(self, at, memory):
            return Guided(torch.full_like(at.x, value))

    return Constant


def test_a_class_defined_later_replaces_the_earlier_one(own_rules):
    first = constant("mine", 1.0)
    assert walk(tg.rule("mine"))[-1].x.unique().tolist() == [1.0]
    constant("mine", 2.0)
    assert walk(tg.rule("mine"))[-1].x.unique().tolist() == [2.0]
    assert tg.register(first) is first
    assert walk(tg.rule("mine"))[-1].x.unique().tolist() == [1.0]
    constant("cfg", 3.0)
    assert walk(tg.rule("cfg"))[-1].x.unique().tolist() == [3.0], "also one of the package"


def test_only_rules_with_a_key_are_registered():
    for wrong in (Rule, int, "cfg", tg.rule("cfg")):
        with pytest.raises(InputError, match=r"register\(.*\): expected a subclass of Rule with a key"):
            tg.register(wrong)


def test_a_role_says_what_it_is():
    with pytest.raises(TypeError, match=r"needs 'weak2': expected one of main, .*Role\('weak2', kind, doc\)"):
        type("Mine", (Rule,), {"needs": ("main", "weak2")})
    with pytest.raises(ValueError, match="role 'weak2': kind 'weeker', expected one of sampled, "):
        Role("weak2", "weeker", "another")
    with pytest.raises(ValueError, match="role 'weak 2': expected letters, digits and underscores"):
        Role("weak 2", "weaker", "another")
