"""The page of studies without a browser: what it lists and shows, and how a run is started, seen and ended."""

import asyncio
import base64
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from toyguide.errors import InputError
from toyguide.studies import Plan, run_study, studies, study
from toyguide.studies.plan import SEEDS
from toyguide.studies.report import describe
from toyguide_apps.studies_page import html as views
from toyguide_apps.studies_page import results as study_results
from toyguide_apps.studies_page import runner as study_runner
from toyguide_apps.studies_page.results import found, rough_seconds
from toyguide_apps.studies_page.runner import Runner
from toyguide_apps.studies_page.session import Studies

NAME = "cfg-is-not-tilting"
PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
PATIENCE = 60.0  # seconds; for a slow machine, not a measurement


@pytest.fixture(autouse=True)
def output(tmp_path, monkeypatch):
    """The server's own folder of studies, with nothing in it, and nothing that came with toyguide."""
    monkeypatch.setenv("TOYGUIDE_STUDIES", str(tmp_path / "own"))
    monkeypatch.setattr(study_results, "bundled_root", lambda: tmp_path / "bundled")
    return tmp_path / "own"


def write(folder, name=NAME, verdict="supported", quick=False, when=None, **changes):
    """A result as `toyguide study` leaves it."""
    described = describe(study(name))
    judged = {"value": 0.25, "low": 0.2, "high": 0.3, "p_against": 0.034, "verdict": verdict}
    criteria = [{**c, **judged} for c in described["criteria"]]
    summary = {
        **described,
        "verdict": verdict,
        "figures": {c["name"]: 0.25 for c in criteria} | {"variance_ode": 0.2512},
        "intervals": {c["name"]: [0.2, 0.3] for c in criteria} | {"variance_ode": [0.2476, None]},
        "criteria": criteria,
        "sheets": [{"name": "variances", "caption": "What is to be seen."}],
        "quick": quick,
        "seeds": 3,
        "first_seed": 100,
        "runs": 18,
        "seconds": 1.0,
        "command": f"toyguide study {name} --seeds 3",
    } | changes
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "runs.csv").write_text("seed,w\n0,1\n")
    (folder / "variances.png").write_bytes(PIXEL)
    (folder / "summary.json").write_text(json.dumps(summary))
    if when is not None:
        os.utime(folder / "summary.json", (when, when))


def parts(page, kind):
    """Everything of a kind on a page."""
    return list(page._main.select(lambda part: type(part).__name__ == kind))


def text(page):
    """What a page says, its buttons among it."""
    said = [str(part.object) for part in (*parts(page, "HTML"), *parts(page, "Typography"))]
    return "\n".join(said + [part.label for part in parts(page, "Button")])


def entered(runner=None, **query):
    page = Studies(runner or Runner())
    return page, page.enter(query)


# ---- what is shown


def test_the_list_has_every_study_with_its_claim_its_source_and_its_verdict(output):
    write(output / NAME, verdict="not supported")
    page, problems = entered()
    assert problems == []
    said = text(page)
    for s in studies().values():
        assert s.title in said
        assert views.escape(s.statement) in said
        assert views.escape(s.source) in said
    assert said.count("not run yet") == len(studies()) - 1
    assert re.search(r"✗</i> not supported</span>.*full run, 3 seeds, 18 runs<br>run here on ", said)
    labels = [(item["label"], item.get("secondary")) for item in page._menu.items]
    assert labels[0] == ("All studies", None)
    assert dict(labels)[study(NAME).title] == "✗ not supported"


def test_a_chosen_study_is_shown_with_all_that_was_found(output):
    write(output / NAME)
    page, _ = entered(study=NAME)
    said, chosen = text(page), study(NAME)
    for words in (chosen.statement, chosen.setting, chosen.source, *(c.text for c in chosen.criteria)):
        assert views.escape(words) in said
    assert "0.25<span class='range'>0.2 … 0.3</span>" in said
    assert "<td class=number>0.034</td>" in said
    assert "<td>variance_ode</td><td class=number>0.2512</td><td class=number>0.2476 … –</td>" in said
    assert said.count("<td>variance_ode") == 1
    assert f"<code>toyguide study {NAME} --seeds 3</code>" in said
    assert f"src='data:image/png;base64,{base64.b64encode(PIXEL).decode()}'" in said
    assert "<figcaption>What is to be seen.</figcaption>" in said
    downloads = {button.filename: button.callback for button in parts(page, "FileDownload")}
    assert set(downloads) == {f"{NAME}-runs.csv", f"{NAME}-summary.json"}
    assert downloads[f"{NAME}-runs.csv"]().read() == b"seed,w\n0,1\n"


def test_choosing_from_the_list_and_from_the_menu_and_going_back(output):
    page, _ = entered()
    for button in parts(page, "Button"):
        if button.label == study(NAME).title:
            button.clicks += 1
    assert views.escape(study(NAME).setting) in text(page)
    assert page._menu.active == (1 + list(studies()).index(NAME),)
    page._menu.active = (1,)
    assert views.escape(next(iter(studies().values())).setting) in text(page)
    page._menu.active = (0,)
    assert views.escape(study(NAME).statement) in text(page)
    assert views.escape(study(NAME).setting) not in text(page)


def test_a_wrong_name_is_told_in_one_line_and_the_list_is_shown():
    page, problems = entered(study="cfg-is-not-titling")
    (problem,) = problems
    assert "\n" not in problem
    assert "unknown study 'cfg-is-not-titling'" in problem
    assert f"did you mean '{NAME}'" in problem
    assert text(page).count("not run yet") == len(studies())


def test_words_from_a_file_are_words_and_a_figure_comes_from_its_own_folder(output):
    (output.parent / "secret.png").write_bytes(b"secret")
    sheet = {"name": "../../secret", "caption": "<script>alert(1)</script>"}
    write(output / NAME, statement="<img src=x onerror=alert(1)>", sheets=[sheet])
    said = text(entered(study=NAME)[0])
    assert "<img src=x" not in said
    assert "<script>" not in said
    assert base64.b64encode(b"secret").decode() not in said
    assert "is missing" in said


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_text("{"),
        lambda path: path.write_text("[]"),
        lambda path: path.write_bytes(b"\xff\xfe"),
        lambda path: path.write_text(json.dumps({**json.loads(path.read_text()), "criteria": [1]})),
        lambda path: path.write_text(json.dumps({**json.loads(path.read_text()), "sheets": [{}]})),
        lambda path: path.write_text(json.dumps({**json.loads(path.read_text()), "intervals": {}})),
        lambda path: path.write_text(json.dumps({**json.loads(path.read_text()), "verdict": 3})),
    ],
)
def test_a_file_that_is_no_summary_is_told_in_one_line_and_is_no_result(output, spoil):
    write(output / NAME)
    spoil(output / NAME / "summary.json")
    page, problems = entered(study=NAME)
    assert len(problems) == 1
    assert "not the summary of a study" in problems[0]
    assert "\n" not in problems[0]
    assert "not run yet" in text(page)


def test_the_newest_full_run_is_shown_first_and_the_others_can_be_had(output):
    write(output.parent / "bundled" / NAME, verdict="supported", when=2e9)
    write(output / NAME, verdict="not supported", when=1e9)
    write(output / f"{NAME}-quick", verdict="inconclusive", quick=True, when=3e9)
    assert [r.key for r in found(study(NAME))[0]] == ["bundled", "full", "quick"]
    page, _ = entered(study=NAME)
    assert "came with toyguide" in text(page)
    (switch,) = parts(page, "RadioButtonGroup")
    assert switch.options == {
        "Came with toyguide: ✓ supported": "bundled",
        "Full run, here: ✗ not supported": "full",
        "Quick look, here: ≈ inconclusive": "quick",
    }
    switch.value = "quick"
    assert "quick look, 3 seeds, 18 runs, run here" in text(page)
    (switch,) = parts(page, "RadioButtonGroup")
    switch.value = "full"
    assert "full run, 3 seeds, 18 runs, run here" in text(page)
    os.utime(output / NAME / "summary.json", (4e9, 4e9))
    assert "full run, 3 seeds, 18 runs, run here" in text(entered(study=NAME)[0])


def test_the_bundled_result_is_said_in_words(output, monkeypatch):
    monkeypatch.setattr(type(study(NAME)), "finding", "Neither < both.")
    write(output.parent / "bundled" / NAME)
    assert "Neither &lt; both." in text(entered(study=NAME)[0])
    write(output / NAME, when=3e9)  # a newer one of this server's own is shown in its place
    assert "Neither" not in text(entered(study=NAME)[0])


def test_a_result_by_other_criteria_than_the_study_has_now_says_so(output):
    write(output / NAME)
    assert "has changed since" not in text(entered(study=NAME)[0])
    summary = json.loads((output / NAME / "summary.json").read_text())
    summary["criteria"][0]["threshold"] = "≥ 77"
    write(output / NAME, criteria=summary["criteria"], when=1e9)
    assert "has changed since" in text(entered(study=NAME)[0])


@pytest.mark.parametrize("quick", [True, False])
def test_the_duration_is_what_a_run_would_add_up_to(output, quick):
    """A run tells how much work there is as it begins; it is stopped there."""

    class StoppedError(Exception):
        pass

    def stop(progress):
        raise StoppedError(progress.total)

    with pytest.raises(StoppedError) as stopped:
        run_study(study(NAME), Plan(quick, SEEDS[quick]), output, stop)
    assert rough_seconds(study(NAME), quick) == pytest.approx(stopped.value.args[0])
    assert views.duration(rough_seconds(study(NAME), quick)) in text(entered(study=NAME)[0])


def test_durations_read_well():
    spoken = {1: "5 s", 42: "40 s", 58: "1 min", 100: "2 min", 3000: "50 min", 9000: "2.5 h"}
    assert {seconds: views.duration(seconds) for seconds in spoken} == spoken


# ---- running

STUB = """
    import json, pathlib, signal, sys, time
    folder, mode = pathlib.Path(sys.argv[1]), sys.argv[2]
    signal.signal(signal.SIGINT, signal.SIG_IGN if mode == "deaf" else signal.default_int_handler)
    folder.mkdir(parents=True, exist_ok=True)
    sys.stderr.write("stub:  50%|##   | 00:01\\rTraceback\\n  here\\nValueError: no\\nlike <this>\\n")
    (folder / "progress.tmp").write_text(json.dumps({"share": 0.5, "left": 80, "text": "seed 1"}))
    (folder / "progress.tmp").rename(folder / "progress.json")
    while mode in ("wait", "deaf") and not (folder / "go").exists():
        time.sleep(0.02)
    (folder / "progress.json").unlink()
    sys.exit(3 if mode == "fail" else 0)
"""


def stub(mode="wait"):
    """A runner whose command stands in for the study: it says that it is half done, and waits for a file."""

    def command(name, quick, output):
        return [sys.executable, "-c", textwrap.dedent(STUB), str(output / f"{name}-quick"), mode]

    return Runner(command)


async def until(true):
    give_up = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < give_up
        await asyncio.sleep(0.02)


def test_a_run_is_seen_by_all_and_its_results_appear_when_it_is_done(output):
    runner = stub()
    write(output / NAME, verdict="not supported")  # which does not stand before what is found now
    first, _ = entered(runner, study=NAME)
    other, _ = entered(runner)

    async def run():
        for page in (first, other):
            runner.listen(page.refresh)
        next(b for b in parts(first, "Button") if "quick look" in b.label).clicks += 1
        assert runner.running.name == NAME
        assert all(b.disabled for b in parts(first, "Button"))
        with pytest.raises(InputError, match=f"the study {NAME} is being run"):
            runner.start("sfg-cost", True)
        await until(lambda: runner.running.share == 0.5)
        late, _ = entered(runner, study="sfg-cost")  # a reload, say
        for page in (first, other, late):
            assert page._bar._row.visible
            assert page._bar._bar.value == 50
            said = page._bar._text.object
            assert "50%, about 1 min left" in said
            assert "(seed 1)" in said
        write(output / f"{NAME}-quick", quick=True, verdict="inconclusive")
        (output / f"{NAME}-quick" / "go").touch()
        await until(lambda: runner.running is None)

    asyncio.run(run())
    assert (runner.ended.how, runner.ended.name) == ("done", NAME)
    assert "inconclusive" in text(first)
    assert "quick look, 3 seeds" in text(first)
    assert not any(b.disabled for b in parts(first, "Button"))
    assert "✗ not supported" in [
        item.get("secondary") for item in other._menu.items
    ]  # a quick look does not replace it
    assert "done" in other._bar._text.object
    assert not other._bar._cancel.visible
    assert not entered(runner)[0]._bar._row.visible  # who comes later is told by the results


@pytest.mark.parametrize("mode", ["wait", "deaf"])
def test_cancel_asks_politely_and_then_less_so(output, monkeypatch, mode):
    monkeypatch.setattr(study_runner, "_PATIENCE", 0.6 if mode == "deaf" else PATIENCE)
    runner = stub(mode)
    page, _ = entered(runner, study=NAME)

    async def run():
        runner.listen(page.refresh)
        runner.start(NAME, True)
        process = runner.running.process
        await until(lambda: runner.running.share == 0.5)
        page._bar._cancel.clicks += 1
        assert runner.running.stopping
        assert page._bar._cancel.disabled
        assert "cancelling" in page._bar._text.object
        await until(lambda: runner.running is None)
        return process.returncode

    code = asyncio.run(run())
    assert code in ((-signal.SIGINT, 1, 130) if mode == "wait" else (-signal.SIGTERM,))
    assert runner.ended.how == "cancelled"
    assert "What is finished is kept: running it again continues." in page._bar._text.object
    assert not (output / f"{NAME}-quick" / "progress.json").exists()


def test_a_failure_is_told_in_the_last_line_that_was_said():
    runner = stub("fail")
    page, _ = entered(runner, study=NAME)

    async def run():
        runner.listen(page.refresh)
        runner.start(NAME, True)
        await until(lambda: runner.running is None)

    asyncio.run(run())
    assert (runner.ended.how, runner.ended.problem) == ("failed", "like <this>")
    assert "failed: like &lt;this&gt;" in page._bar._text.object
    assert "failed" in entered(runner)[0]._bar._text.object  # also to who comes later


def test_a_page_that_fails_keeps_neither_the_run_nor_other_pages_from_going_on(caplog):
    runner, told = stub("done"), []

    async def run():
        runner.listen(lambda: 1 / 0)
        leave = runner.listen(lambda: told.append(runner.running))
        runner.start(NAME, True)
        await until(lambda: runner.running is None)
        leave()

    asyncio.run(run())
    assert runner.ended.how == "done"
    assert told[-1] is None
    assert "a page could not be told" in caplog.text


def test_a_command_that_cannot_be_started_is_one_line():
    runner = Runner(lambda *_: ["/nowhere/python"])

    async def run():
        with pytest.raises(InputError, match="cannot be started"):
            runner.start(NAME, True)

    asyncio.run(run())
    assert runner.running is None


def test_the_command_is_one_that_toyguide_knows(tmp_path, monkeypatch):
    """Also where the working directory has another folder named toyguide, as a checkout's parent has."""
    (tmp_path / "toyguide").mkdir()
    (tmp_path / "toyguide" / "__init__.py").write_text("raise ImportError('another toyguide')")
    monkeypatch.chdir(tmp_path)
    for quick, flags in ((True, ["--quick"]), (False, [])):
        command = study_runner._command(NAME, quick, tmp_path)
        assert command[-len(flags) - 6 :] == ["toyguide", "study", NAME, *flags, "--json", "-o", str(tmp_path)]
    listed = [*command[: command.index(NAME)], "--list", "--json"]
    done = subprocess.run(listed, env=study_runner._environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert NAME in [s["name"] for s in json.loads(done.stdout)]


def test_a_run_ends_with_the_server(tmp_path):
    code = f"""
        import asyncio, sys
        sys.path.insert(0, {os.path.dirname(__file__)!r})
        from test_studies_page import NAME, stub, until
        async def run():
            runner = stub()
            runner.start(NAME, True)
            print(runner.running.process.pid, flush=True)
            await until(lambda: runner.running.share == 0.5)
        asyncio.run(run())
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    with pytest.raises(ProcessLookupError):
        os.kill(int(done.stdout), 0)
