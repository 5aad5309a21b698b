"""The checks of a rule find what is wrong with it, and the commands that write and check one say so."""

from __future__ import annotations

import json
import math

import param
import pytest
import torch

from toyguide.cli import main
from toyguide.contract import CHECKS, check_rule
from toyguide.guidance import Arrival, Guided, Limit, PerTrajectory, rules
from toyguide.guidance.base import DEFINED
from toyguide.guidance.rules.cfg import ClassifierFreeGuidance

TITLES = [check.title for check in CHECKS]


@pytest.fixture
def broken():
    """Makes CFG with something wrong, under a name that is forgotten after the test."""
    before = dict(DEFINED)

    def make(**wrong):
        return type("Broken", (ClassifierFreeGuidance,), {"key": "broken", **wrong})

    yield make
    DEFINED.clear()
    DEFINED.update(before)


def failing(cls) -> dict[str, str]:
    return {finding.check: finding.said for finding in check_rule(cls) if finding.verdict == "fails"}


def extra(change):
    """CFG's ``guide`` with a change to the denoised points."""

    def guide(self, at, memory):
        main, uncond = at.denoised_each("main", "uncond")
        return Guided(change(self, at, main + (self.w - 1) * (main - uncond)))

    return guide


def test_cfg_under_another_name_passes_everything(broken):
    assert not failing(broken(limits=(Limit({}, "cfg", same=("w",)),)))


FAULTS = {
    "described for the help text": {"summary": ""},
    "parameters bounded, nonsense refused": {"z": param.Number(3.0, doc="No bounds.")},
    "finite at every setting, also far out": {"guide": extra(lambda self, at, d: d / (at.x.norm() < 100))},
    "guides at its default values": {"w": PerTrajectory(1.0, bounds=(0.0, 9.0), doc="Off by default.")},
    "unguided at its unguided values": {"unguided": {"w": 0.0}},
    "equal to other rules where it says so": {"limits": (Limit({}, "autoguidance", same=("w",)),)},
    "parameters without meaning change nothing": {
        "mode": param.Selector(default="a", objects=["a", "b"], doc="A choice."),
        "only_with": {"w": {"mode": ("a",)}},
    },
    "each point guided by itself": {"guide": extra(lambda self, at, d: d - d.mean(0))},
    "batches as runs one by one": {"guide": extra(lambda self, at, d: d * float(torch.as_tensor(self.w).max()))},
    "turned with its fields": {"guide": extra(lambda self, at, d: d.sign())},
    "shifted with its fields": {"guide": extra(lambda self, at, d: 2 * d)},
    "evaluations counted as made": {
        "guide": extra(lambda self, at, d: d + at.field("main").denoise(at.x, at.sigma) - at.denoised()),
    },
    "only the fields that it needs": {"needs": ("main", "uncond", "weak")},
    "written to JSON and read again": {"values": lambda self: {"w": self.w / 2}},
}


@pytest.mark.parametrize("title", TITLES)
def test_each_check_finds_its_fault(broken, title):
    assert title in failing(broken(**FAULTS[title]))


def test_what_is_found_names_what_to_change(broken):
    said = failing(broken(equivariant=("rotation", "translation"), guide=extra(lambda self, at, d: 2 * d)))
    assert "expected equivariant = ('rotation',)" in said["shifted with its fields"]
    said = failing(broken(guide=extra(lambda self, at, d: d - d.mean(0))))
    assert "expected interacts = True" in said["each point guided by itself"]


def test_an_exception_is_a_finding(broken):
    said = failing(broken(guide=extra(lambda self, at, d: d[:, 5])))
    assert said["finite at every setting, also far out"].startswith("IndexError: ")


def test_a_rule_that_resamples_without_saying_so_is_found(broken):
    def after_step(self, step, memory, generator):
        return Arrival(step.x_next.flip(0), memory, torch.arange(len(step.x)).flip(0))

    assert "after_step resamples, expected interacts = True" in failing(broken(after_step=after_step)).popitem()[1]


def test_infinity_is_accepted_where_it_switches_off(broken):
    cls = broken(off={"w": math.inf}, w=PerTrajectory(3.0, bounds=(0.0, math.inf), softbounds=(0.0, 9.0), doc="Inf."))
    assert cls(w=math.inf).w == cls(w="inf").w == math.inf
    assert "written to JSON and read again" not in failing(cls)
    with pytest.raises(Exception, match=r"w = nan: expected a number from 0\.0, or inf"):
        cls(w=math.nan)


# The commands


def test_a_new_rule_passes_its_checks_and_samples(tmp_path, capsys, monkeypatch):
    file = tmp_path / "two_words.py"
    assert main(["new-rule", "two-words", "-o", str(file)]) == 0
    assert main(["check-rule", str(file)]) == 0
    report = capsys.readouterr().out
    assert "two-words: Two words" in report
    assert "FAILS" not in report
    assert all(title in report for title in TITLES)
    DEFINED.pop("two-words")
    monkeypatch.setenv("TOYGUIDE_RULES", str(tmp_path))
    assert main(["sample", "--rule", "two-words", "--n", "8", "--steps", "2", "-o", str(tmp_path / "run.npz")]) == 0


def test_a_published_rule_is_checked_by_name(capsys):
    assert main(["check-rule", "cfg", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["cfg"]
    assert [finding["check"] for finding in found] == TITLES


def test_a_broken_rule_is_reported_and_counted(tmp_path, capsys):
    file = tmp_path / "bad.py"
    assert main(["new-rule", "bad-one", "-o", str(file)]) == 0
    file.write_text(file.read_text().replace("(main - uncond))", "(main - uncond) * at.x.mean())"))
    assert main(["check-rule", str(file)]) == 2
    captured = capsys.readouterr()
    DEFINED.pop("bad-one")
    assert "FAILS  each point guided by itself" in captured.out
    assert "toyguide: checks failed: " in captured.err
    assert "of bad-one" in captured.err


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, "no such file"),
        ("import nothing_of_this_name", "cannot be imported (ModuleNotFoundError"),
        ("raise SystemExit(3)", "cannot be imported (SystemExit"),
        ("x = 1", "defines no rule"),
        ("def f(:", "cannot be imported (SyntaxError"),
    ],
)
def test_a_file_that_is_no_rule_is_refused_in_one_line(tmp_path, capsys, text, expected):
    file = tmp_path / "rule.py"
    if text is not None:
        file.write_text(text)
    assert main(["check-rule", str(file)]) == 2
    error = capsys.readouterr().err
    assert expected in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(("name", "expected"), [("cfg", "is taken"), ("Two Words", "expected small letters")])
def test_a_bad_name_for_a_new_rule_is_refused(tmp_path, capsys, name, expected):
    assert main(["new-rule", name, "-o", str(tmp_path / "x.py")]) == 2
    assert expected in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_file_is_not_overwritten(tmp_path, capsys):
    file = tmp_path / "mine.py"
    file.write_text("precious")
    assert main(["new-rule", "mine", "-o", str(file)]) == 2
    assert file.read_text() == "precious"
    assert set(rules()) & {"mine"} == set()
