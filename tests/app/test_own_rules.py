"""Rules from a file that is edited while the explorer runs: what is taken over, and what is told."""

import asyncio
import os

import numpy as np
import pytest

import toyguide as tg
from toyguide.errors import InputError
from toyguide_apps.explorer_page import own_rules
from toyguide_apps.explorer_page.chooser import families
from toyguide_apps.explorer_page.controls import PanelCard
from toyguide_apps.explorer_page.own_rules import OwnRules
from toyguide_apps.explorer_page.session import Explorer

RULE = """
import param
import torch
from toyguide.guidance import Guided, Rule


class Mine(Rule):
    key = "{key}"
    title = "Mine"
    {more}
    w = param.Number(1.5, bounds=(0.0, {most}), doc="How much.")

    def guide(self, at, memory):
        main = at.denoised("main")
        {body}
        return Guided({returned})
"""


def text(body="pass", returned="self.w * main", key="mine", most=3.0, more=""):
    return RULE.format(body=body, returned=returned, key=key, most=most, more=more)


@pytest.fixture
def own(add_rule, monkeypatch):
    """No files yet, for the whole app."""
    found = OwnRules()
    for module in ("session", "chooser"):
        monkeypatch.setattr(f"toyguide_apps.explorer_page.{module}.OWN", found)
    return found


@pytest.fixture
def write(own, tmp_path):
    """Writes the file, as an editor does, and lets it be looked at."""
    path, times = tmp_path / "mine.py", iter(range(1, 100))

    def write(content):
        path.write_text(content, encoding="utf-8")
        moment = next(times) * 10**9
        os.utime(path, ns=(moment, moment))  # also within one tick of the file system's clock
        own.look() if own else own.add(path)

    return write


@pytest.fixture
def explorer(own, write, monkeypatch):
    """An explorer that shows the rule, without a server."""
    monkeypatch.setattr("panel.state.execute", lambda *_, **__: None)
    write(text())
    made = Explorer()
    made.state.set({"dataset": "two-gaussians", "rule": "mine", "n": 128, "steps": 4, "bands": "divergence"})
    return made


def shown(explorer):
    asyncio.run(explorer.refresh())
    return explorer.picture


def followed(explorer, monkeypatch):
    """What a session does when it looks at the files; returns what it tells."""
    said = []
    monkeypatch.setattr("toyguide_apps.explorer_page.session.complain", said.append)

    async def go():
        following = asyncio.ensure_future(explorer.follow_files())
        await asyncio.sleep(0.01)
        following.cancel()

    asyncio.run(go())
    return said


def test_its_rules_come_first_in_the_list(own, write):
    write(text())
    assert families()[0]["family"] == "Yours"
    assert [entry["key"] for entry in families()[0]["rules"]] == ["mine"]
    assert sum(entry["key"] == "mine" for group in families() for entry in group["rules"]) == 1


def test_a_changed_file_changes_the_picture(explorer, own, write):
    first = shown(explorer)
    assert explorer.state.request() == first.request
    write(text(returned="0.5 * self.w * main"))
    explorer.state.renew_rules(own.successor)
    second = shown(explorer)
    assert second is not first
    assert second.request != first.request, "no cache can take one for the other"
    assert not np.allclose(second.runs[1].frames[-1], first.runs[1].frames[-1])
    assert np.array_equal(second.runs[0].frames, first.runs[0].frames)
    assert not np.array_equal(second.scenes[1].image, first.scenes[1].image)
    assert second.scenes[1].key != first.scenes[1].key
    assert repr(second.scenes[1].key) != repr(first.scenes[1].key), "the browser keeps layers by this text"
    expected = tg.Experiment(**explorer.state.experiment(1).settings()).run("cpu")
    assert np.allclose(second.runs[1].frames[-1], expected.x[-1].numpy(), atol=1e-5)


def test_sliders_follow_and_values_that_fit_stay(explorer, own, write):
    card = PanelCard(explorer.state)
    card._widgets["w"].value = 2.5
    write(text(more='h = param.Number(0.1, bounds=(0.0, 1.0), doc="New.")'))
    explorer.state.renew_rules(own.successor)
    assert list(card._widgets) >= ["h", "w"]
    assert explorer.state.panels[1].rule.values() == {"h": 0.1, "w": 2.5}
    write(text(most=2.0))
    explorer.state.renew_rules(own.successor)
    assert explorer.state.panels[1].rule.values() == {"w": 1.5}  # 2.5 no longer fits
    explorer.state.request()


def test_a_renamed_rule_takes_the_place_of_the_old_one(explorer, own, write):
    explorer.state.set({"params": {"w": 2.0}})
    write(text(key="better"))
    explorer.state.renew_rules(own.successor)
    assert (explorer.state.panels[1].rule.key, explorer.state.panels[1].rule.w) == ("better", 2.0)
    assert "mine" not in tg.rules()
    write(text())
    explorer.state.renew_rules(own.successor)
    assert explorer.state.panels[1].rule.key == "mine"
    assert own.keys == ("mine",)


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        (text().replace("(Rule):", "(Rule)"), "mine.py, line 7: expected ':'"),
        ("import nothing_like_it\n", "mine.py, line 1: ModuleNotFoundError: No module named 'nothing_like_it'"),
        (text(body="main = main + undefined"), "mine.py, line 15: NameError: name 'undefined' is not defined"),
        (text(returned="main.sum(-1)"), "mine.py, line 13: guide of 'mine' returns the shape (8,) for points of"),
        (text().replace("Guided(self.w * main)", "main"), "mine.py, line 13: guide of 'mine' returns Tensor, expected"),
        (text(key="cfg"), "the rule name 'cfg' is taken"),
        ("x = 1\n", "defines no rule"),
        ("raise SystemExit(3)\n", "mine.py, line 1: SystemExit: 3"),
        ("raise KeyboardInterrupt\n", "mine.py, line 1: KeyboardInterrupt"),
        (text(body="at.denoised('weak')"), "mine.py, line 15: "),
        (text() + "raise ValueError('after the class\\nis made')\n", "ValueError: after the class is made"),
        ("while True:\n    pass\n", "TimeoutError: still running after 0.5 seconds"),
        (text(body="while True: pass"), "mine.py, line 15: TimeoutError: still running after 0.5 seconds"),
    ],
)
def test_a_mistake_is_one_line_and_the_last_version_goes_on(broken, told, explorer, own, write, monkeypatch):
    monkeypatch.setattr(own_rules, "_LONGEST", 0.5)
    before, good = tg.rules()["mine"], shown(explorer)
    cfg = tg.rules()["cfg"]
    write(broken)
    (line,) = followed(explorer, monkeypatch)
    assert told in line
    assert line.endswith(". The last version goes on.")
    assert "\n" not in line
    assert tg.rules()["mine"] is before
    assert tg.rules()["cfg"] is cfg
    assert explorer.state.request() == good.request
    explorer.state.set({"seed": 5})
    assert shown(explorer).request.runs[1].seed == 5
    write(text(returned="0.9 * self.w * main"))
    assert own.problems == []
    assert tg.rules()["mine"] is not before


def test_an_exception_at_some_values_is_told_with_its_line(explorer, own, write, monkeypatch):
    write(text(body="main = main if self.w < 2 else main[:, :, None] @ main"))
    explorer.state.renew_rules(own.successor)
    good = shown(explorer)
    said = []
    monkeypatch.setattr("toyguide_apps.explorer_page.session.complain", said.append)
    monkeypatch.setattr("toyguide_apps.explorer_page.session.OWN", own)
    explorer.state.set({"params": {"w": 2.5}})
    assert shown(explorer) is good
    assert said[-1].startswith("mine.py, line 15: RuntimeError: ")


def test_a_file_that_is_wrong_from_the_start_is_told(own, write, explorer, monkeypatch, tmp_path):
    other = tmp_path / "other.py"
    other.write_text("oops\n", encoding="utf-8")
    own.add(other)
    assert own.problems == ["other.py, line 1: NameError: name 'oops' is not defined"]
    assert followed(explorer, monkeypatch) == own.problems
    assert own.keys == ("mine",)


def test_files_that_are_not_there_are_refused(own, write, tmp_path):
    with pytest.raises(InputError, match="no such file"):
        own.add(tmp_path / "nowhere.py")
    write(text())
    twin = tmp_path / "folder" / "mine.py"
    twin.parent.mkdir()
    twin.write_text(text(key="twin"), encoding="utf-8")
    with pytest.raises(InputError, match="different names"):
        own.add(twin)
