"""Sweeps: the grid as it is written, its rows against single runs, and nothing lost or doubled whatever happens."""

from __future__ import annotations

import csv
import dataclasses
import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future, ThreadPoolExecutor
from pathlib import Path

import pyarrow.parquet
import pytest

import toyguide as tg
from toyguide.cli import main
from toyguide.errors import InputError
from toyguide.guidance import rules
from toyguide.sweeps import Ledger, batch, executors, read_sweep, sweep
from toyguide.sweeps.batch import batches, identity, run_batch

COMMON = '[experiment]\ndataset = "two-gaussians"\nlabel = "left"\nmain = "exact"\nsteps = 3\nn = 16\n'
GRID = '[grid]\nrule = ["cfg", "none"]\nseeds = 2\n'
SPEC = COMMON + '[[grid]]\nrule = "cfg"\nparams.w = [1.0, 2.5]\nseeds = 2\n[[grid]]\nrule = "none"\nseeds = [1, 7]\n'


@pytest.fixture
def written(tmp_path):
    """Writes a sweep's file and gives its path."""

    def write(text):
        path = tmp_path / "spec.toml"
        path.write_text(text)
        return path

    return write


@pytest.fixture
def cli(capsys):
    """Runs one command line in this process: exit code, stdout, stderr."""

    def run(*argv):
        try:
            code = main(["sweep", *map(str, argv)])
        except SystemExit as left:
            code = left.code
        out, err = capsys.readouterr()
        return code, out, err

    return run


def table(path) -> list[dict]:
    """A table's rows without the one column that is never the same."""
    with open(path, newline="") as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


def timeless(rows) -> list[dict]:
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


# The grid


def test_a_grid_is_every_combination(written):
    found = read_sweep(written(SPEC))
    base = {"dataset": "two-gaussians", "label": "left", "main": "exact", "steps": 3, "n": 16}
    cfg = [tg.Experiment(**base, rule="cfg", params={"w": w}, seed=s) for w in (1.0, 2.5) for s in (0, 1)]
    assert found == [*cfg, *(tg.Experiment(**base, seed=s) for s in (1, 7))]


def test_the_setting_written_first_varies_slowest(written):
    text = '[grid]\nseeds = 2\nparams.h = [0.1, 0.2]\nrule = "sfg"\nparams.sign = ["score", "persistent"]\nn = [8, 4]\n'
    found = [(e.seed, e.params["h"], e.params["sign"], e.n) for e in read_sweep(written(text))]
    assert found == [(s, h, g, n) for s in (0, 1) for h in (0.1, 0.2) for g in ("score", "persistent") for n in (8, 4)]


def test_intervals_labels_and_one_value_alone(written):
    text = 'label = ["A", "union"]\ninterval = [0.1, 2]\n'
    assert [(e.label, e.interval) for e in read_sweep(written(f"[grid]\n{text}"))] == [
        ("A", (0.1, 2.0)),
        (None, (0.1, 2.0)),
    ]
    several = read_sweep(written('[experiment]\nlabel = "union"\n[grid]\ninterval = [[0.1, 2], [0.3, 1]]\n'))
    assert [(e.label, e.interval) for e in several] == [(None, (0.1, 2.0)), (None, (0.3, 1.0))]


def test_common_parameters_are_those_of_the_common_rule(written):
    common = '[experiment]\nrule = "sfg"\nparams = {h = 0.2, w = 3}\n[grid]\n'
    one, other = read_sweep(written(f'{common}rule = ["sfg", "cfg"]\nparams.w = 2'))
    assert one.params == {"w": 2.0, "alpha": 1.0, "h": 0.2, "sign": "persistent"}
    assert other.params == {"w": 2.0}
    assert read_sweep(written(f"{common}seeds = 1"))[0].params["w"] == 3.0


def test_equal_experiments_are_one(written):
    text = COMMON + '[[grid]]\nparams.w = [3, 3.0]\nrule = "cfg"\n[[grid]]\nrule = "cfg"\nparams.w = [2, 3]\n'
    assert [e.params["w"] for e in read_sweep(written(text))] == [3.0, 2.0]


def test_the_example():
    found = read_sweep(Path(__file__).resolve().parent.parent / "docs" / "sweep.toml")
    assert len(found) == 36
    assert {e.rule for e in found} == {"cfg", "autoguidance", "sfg"}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[grid", r"not valid TOML"),
        ("", r"grid: is missing"),
        ("grid = 3", r"grid: 3: expected a table, or several"),
        ("grid = []", r"grid: \[\]: expected a table, or several"),
        ("[gird]\n[grid]\nseeds = 1", r"gird: unknown key 'gird': .*did you mean 'grid'\?"),
        ("experiment = 1\n[grid]", r"experiment: 1: expected a table"),
        ("[experiment]\nsteps = 0\n[grid]", r"experiment: steps = 0: expected a whole number from 1"),
        ("[experiment]\nstep = 3\n[grid]", r"experiment\.step: unknown key 'step': .*did you mean 'steps'\?"),
        ('[experiment]\nrule = "cfgg"\n[grid]', r"experiment: unknown rule 'cfgg': .*did you mean 'cfg'\?"),
        ("[experiment]\nparams.w = 3\n[grid]", r"experiment: unknown parameter of none 'w'"),
        ("[grid]\nseed = [1, 2]", r"grid\.seed: unknown key 'seed': .*did you mean 'seeds'\?"),
        ("[grid]\nseeds = 0", r"grid\.seeds: 0: expected a whole number from 1"),
        ("[grid]\nseeds = true", r"grid\.seeds: True: expected a whole number from 1"),
        ("[grid]\nseeds = [0, -1]", r"grid: seed = -1: expected a whole number from 0"),
        ("[grid]\nseeds = []", r"grid\.seeds: \[\]: expected at least one value"),
        ("[grid]\nparams = 3", r"grid\.params: 3: expected a table"),
        ("[grid]\nn = []", r"grid\.n: \[\]: expected at least one value"),
        ("[grid]\nn = [[3]]", r"grid: n = \[3\]: expected a whole number"),
        ('[grid]\nrule = "cfg"\nparams.w = [1, 31]', r"grid: cfg: w = 31: expected a number from 0\.0 to 30\.0"),
        ('[grid]\nlabel = ["A", "C"]', r"grid: unknown label of fractal 'C'"),
        ("[grid]\ninterval = [2, 1]", r"grid: interval = \[2, 1\]: expected two noise levels"),
        ('[[grid]]\n[[grid]]\nmain = ["exact", "exakt"]', r"grid\[1\]: unknown field 'exakt': .* mean 'exact'\?"),
        ("[grid]\nseeds = 1001\nn = [" + "1," * 1000 + "]", r"grid: makes 1,001,000 experiments: expected at most 1,0"),
    ],
)  # fmt: skip
def test_every_wrong_spec_is_refused_in_one_line(written, cli, tmp_path, text, complaint):
    code, out, err = cli(written(text), "-o", tmp_path / "t.csv")
    assert (code, out) == (2, "")
    assert re.fullmatch(rf"toyguide: {re.escape(str(tmp_path))}/spec\.toml: {complaint}.*\n", err), err
    assert [p.name for p in tmp_path.iterdir()] == ["spec.toml"]


# Batches and rows


def test_batches_are_of_one_kind_and_of_bounded_size(monkeypatch):
    monkeypatch.setitem(batch._POINTS, "cpu", 40)
    runs = [
        tg.Experiment(rule="sfg", params={"w": w, "sign": sign}, interval=interval, n=16, seed=seed)
        for sign in ("persistent", "score")
        for interval in (None, (0.1, 1.0))
        for w in (1.0, 2.0, 3.0)
        for seed in (0, 1)
    ]
    found = batches([*runs, runs[0]])
    assert [len(b) for b in found] == [2, 2, 2] * 4
    assert [e for b in found for e in b] == runs
    for b in found:
        assert len({(e.params["sign"], e.interval) for e in b}) == 1
    assert [len(b) for b in batches([dataclasses.replace(e, n=1000) for e in runs])] == [1] * 24
    assert [len(b) for b in batches(runs, "cuda")] == [6] * 4, "whose GPU it is does not matter here"


def test_a_rule_that_does_not_allow_it_is_run_one_by_one(monkeypatch):
    monkeypatch.setattr(rules()["cfg"], "batchable", False)
    assert [len(b) for b in batches([tg.Experiment(rule="cfg", params={"w": w}) for w in (1.0, 2.0)])] == [1, 1]


def test_a_row_is_a_runs_settings_and_metrics():
    """Of batches of one: to the last digit."""
    run = tg.Experiment(label="A", rule="sfg", params={"w": 2.0}, interval=(0.1, 1.0), n=64, steps=4, seed=3)
    (row,) = run_batch([run.to_json()], "cpu")
    assert json.loads(json.dumps(row)) == row, "plain values"
    settings = {
        "id": identity(run), "dataset": "fractal", "label": "A", "main": "fractal/main",
        "rule": "sfg", "params.w": 2.0, "params.alpha": 1.0, "params.h": 0.1, "params.sign": "persistent",
        "interval.low": 0.1, "interval.high": 1.0, "schedule": None, "sampler": "heun", "steps": 4, "n": 64, "seed": 3,
        "sigma_min": None, "sigma_max": None, "rho": None,
    }  # fmt: skip
    measured = run.run("cpu").metrics(resamples=0)
    assert 0 < row.pop("seconds") < 60
    measured.pop("seconds")
    assert row == {**settings, **measured}
    assert identity(dataclasses.replace(run, seed=4)) != identity(run) == identity(dataclasses.replace(run))


def test_rows_of_a_batch_are_those_of_single_runs(written):
    """In another order of float32 sums at most; the two coarsest metrics move by whole samples, here by none."""
    runs = read_sweep(written(SPEC.replace("n = 16", "n = 200")))
    joined = {row["id"]: row for rows in sweep(runs, device="cpu") for row in rows}
    assert len(joined) == len(runs)
    for run in runs:
        row, single = joined[identity(run)], run.run("cpu").metrics(resamples=0)
        assert (row["nfe"], row["outliers"], row["class_leak"]) == (
            single["nfe"],
            single["outliers"],
            single["class_leak"],
        )
        for name in ("coverage", "log_density", "sliced_w2"):
            assert row[name] == pytest.approx(single[name], rel=1e-5), name


def test_a_batchs_time_is_shared_out(monkeypatch):
    monkeypatch.setattr(batch.time, "perf_counter", iter([100.0, 106.0]).__next__)
    runs = [tg.Experiment(dataset="two-gaussians", main="exact", steps=2, n=8, seed=seed) for seed in range(3)]
    assert [row["seconds"] for row in run_batch([e.to_json() for e in runs], "cpu")] == [2.0, 2.0, 2.0]


class Recording(Executor):
    """Runs what it is given at once and keeps what went in."""

    def __init__(self):
        self.sent = []

    def submit(self, function, *args):
        self.sent.append(args)
        future = Future()
        future.set_result(function(*args))
        return future


def test_any_executor_is_sent_texts(written):
    runs, recording = read_sweep(written(SPEC)), Recording()
    rows = [row for some in sweep(runs, recording, "cpu") for row in some]
    assert [[json.loads(t) for t in texts] for texts, _ in recording.sent] == [
        [json.loads(e.to_json()) for e in b] for b in batches(runs)
    ]
    with ThreadPoolExecutor(2) as threads:
        threaded = [row for some in sweep(runs, threads, "cpu") for row in some]

    def in_order(rows):
        return sorted(timeless(rows), key=lambda row: row["id"])

    assert in_order(threaded) == in_order(rows) == in_order(r for some in sweep(runs, device="cpu") for r in some)


def test_what_is_not_needed_any_more_is_not_run(written):
    runs, recording = read_sweep(written(SPEC)), Recording()
    some = sweep(runs, recording, "cpu")
    next(some)
    some.close()
    recording.sent.clear()
    (first, second) = batches(runs)
    list(sweep(runs, recording, "cpu", {identity(e) for e in (*first, second[0])}))
    assert [len(texts) for texts, _ in recording.sent] == [len(second)], "whole, so that its rows are what they were"
    list(sweep(runs, recording, "cpu", {identity(e) for e in runs}))
    assert len(recording.sent) == 1


# The ledger


@pytest.fixture
def rows(written):
    """The experiments of the sweep, and their rows."""
    runs = read_sweep(written(SPEC))
    return runs, [row for some in sweep(runs, device="cpu") for row in some]


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_the_table_is_in_the_grids_order_whatever_the_rows_was(rows, tmp_path, kind):
    runs, found = rows
    with Ledger(tmp_path / f"t.{kind}", runs) as ledger:
        assert ledger.add(found[::-1]) == len(runs)
        assert ledger.add(found[2:4]) == 0, "no row is doubled"
    by_id = {row["id"]: row for row in found}
    columns = [*by_id[identity(runs[0])]]
    if kind == "csv":
        with ledger.path.open(newline="") as file:
            read = list(csv.DictReader(file))
        expected = [
            {c: "" if by_id[identity(e)].get(c) is None else str(by_id[identity(e)][c]) for c in columns} for e in runs
        ]
    else:
        read = pyarrow.parquet.read_table(ledger.path).to_pylist()
        expected = [{c: by_id[identity(e)].get(c) for c in columns} for e in runs]
    assert read == expected
    assert list(read[0]) == columns, "settings first"
    assert not ledger.journal.path.exists()
    assert Ledger(ledger.path, runs).finished
    with Ledger(tmp_path / "reversed.csv", runs[::-1]) as other:  # whose first rows have no parameters
        other.add(found)
    assert other.path.read_text().splitlines()[0] == ",".join(columns)


def test_a_torn_line_is_cut_off(rows, tmp_path):
    runs, found = rows
    with Ledger(tmp_path / "t.csv", runs) as ledger:
        ledger.add(found[:3])
    whole = ledger.journal.path.read_bytes()
    for torn in (whole[:-1], whole[:-40], whole + b'{"id"'):
        ledger.journal.path.write_bytes(torn)
        with Ledger(tmp_path / "t.csv", runs) as again:
            kept = 3 if len(torn) > len(whole) else 2
            assert list(again.rows) == [row["id"] for row in found[:kept]]
            again.add(found[kept:4])
        assert [json.loads(line) for line in again.journal.path.read_text().splitlines()] == found[:4]


def test_what_belongs_to_another_sweep_is_refused(rows, tmp_path):
    runs, found = rows
    others = [dataclasses.replace(e, steps=4) for e in runs]
    with Ledger(tmp_path / "t.csv", runs) as ledger:
        ledger.add(found[:3])
    with pytest.raises(InputError, match=r"journal '.*t\.csv\.journal': has rows of another sweep"):
        Ledger(tmp_path / "t.csv", others)
    ledger.journal.path.write_text('{"id": 3}\nno row\n')
    with pytest.raises(InputError, match=r"journal '.*': line 2 is damaged"):
        Ledger(tmp_path / "t.csv", runs)
    ledger.journal.path.unlink()
    with Ledger(tmp_path / "t.csv", runs) as ledger:
        ledger.add(found)
    for wrong in (others, runs[:-1], runs[::-1]):
        with pytest.raises(InputError, match=r"output '.*t\.csv': has the rows of another sweep"):
            Ledger(tmp_path / "t.csv", wrong)
    for name in ("t.csv", "t.parquet"):
        (tmp_path / name).write_bytes(b"\xff\x00")
        with pytest.raises(InputError, match=r"output '.*': is there, and is no table of a sweep"):
            Ledger(tmp_path / name, runs)


def test_nothing_is_left_of_nothing(rows, tmp_path):
    with Ledger(tmp_path / "t.csv", rows[0]) as ledger:
        assert ledger.journal.path.exists()
    assert [p.name for p in tmp_path.iterdir()] == ["spec.toml"]


# The command


def test_the_command_writes_a_table_once(written, cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    spec = written(SPEC)
    code, out, err = cli("spec.toml", "--device", "cpu")
    assert (code, err) == (0, "")
    assert re.fullmatch(r"spec\.csv: 6 rows, 6 of them new, [\d.]+ s\n", out)
    assert [row["id"] for row in table("spec.csv")] == [identity(e) for e in read_sweep(spec)]
    monkeypatch.setattr(batch, "run_batch", lambda *_: pytest.fail("it ran again"))
    assert cli("spec.toml")[:2] == (0, "spec.csv: finished before, 6 rows; nothing to do\n")
    code, out, _ = cli("spec.toml", "--json")
    assert json.loads(out) == {"file": "spec.csv", "rows": 6, "new": 0, "seconds": 0.0}


@pytest.mark.parametrize(
    ("argv", "complaint"),
    [
        (["-o", "{}/nowhere/t.csv"], "the folder '.*nowhere' does not exist"),
        (["-o", "{}/t.npz"], r"expected a name that ends in \.csv or \.parquet"),
        (["--executor", "proceses"], r"unknown --executor 'proceses': .*did you mean 'processes'\?"),
        (["--executor", "processes", "--workers", "0"], "--workers 0: expected a whole number from 1"),
        (["--workers", "2"], "--workers: only processes can be several"),
        (["--scheduler", "nobody"], "scheduler 'nobody': expected an address like tcp://HOST:8786"),
        (["--scheduler", "tcp://localhost:99999"], "scheduler 'tcp://localhost:99999': expected an address"),
        (["--scheduler", "tcp://127.0.0.1:1"], "scheduler .*: expected an address like .*; nobody answers there"),
        (["--scheduler", "tcp://h:1", "--executor", "processes"], "--scheduler: its cluster has workers of its own"),
        (["--device", "cdua"], r"unknown --device 'cdua': .*did you mean 'cuda'\?"),
    ],
)
def test_wrong_flags(written, cli, tmp_path, monkeypatch, argv, complaint):
    monkeypatch.setattr(executors, "_PATIENCE", "0.5s")
    monkeypatch.chdir(tmp_path)
    code, out, err = cli(written(SPEC), *(a.format(tmp_path) for a in argv))
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert re.search(complaint, err), err
    assert [p.name for p in tmp_path.iterdir()] == ["spec.toml"]


@pytest.mark.parametrize(
    ("module", "argv", "expected"),
    [
        ("distributed", ["--scheduler", "tcp://127.0.0.1:1"], "toyguide[distributed]"),
        ("pyarrow", ["-o", "t.parquet"], "toyguide[parquet]"),
    ],
)
def test_what_is_not_installed_is_named(written, cli, tmp_path, monkeypatch, module, argv, expected):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, module, None)
    code, out, err = cli(written(SPEC), *argv)
    assert (code, out) == (2, "")
    assert f"pip install '{expected}'" in err
    assert [p.name for p in tmp_path.iterdir()] == ["spec.toml"]


# Interruptions

# Twelve batches of one.
SLOW = """
[experiment]
dataset = "two-gaussians"
label = "left"
main = "exact"
n = 8192
steps = 8
[grid]
rule = "sfg"
seeds = 6
params.w = [1.0, 2.0]
"""


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """The table of the slow sweep, made without interruption in this process."""
    folder = tmp_path_factory.mktemp("expected")
    (folder / "spec.toml").write_text(SLOW)
    assert main(["sweep", str(folder / "spec.toml"), "-o", str(folder / "t.csv"), "--device", "cpu"]) == 0
    return table(folder / "t.csv")


def test_ctrl_c_and_on(written, cli, tmp_path, monkeypatch):
    honest = Ledger.add

    def add(self, rows):
        honest(self, rows)
        raise KeyboardInterrupt

    monkeypatch.setattr(Ledger, "add", add)
    spec, output = written(SPEC), tmp_path / "t.csv"
    code, out, err = cli(spec, "-o", output, "--device", "cpu")
    assert (code, out) == (130, "")
    assert err == "toyguide: interrupted; 4 of 6 rows are kept; run the same again to continue\n"
    assert not output.exists()
    monkeypatch.undo()
    assert json.loads(cli(spec, "-o", output, "--device", "cpu", "--json")[1])["new"] == 2
    assert len(table(output)) == 6


def test_kill_and_on(written, cli, tmp_path, expected):
    """A process is killed between two rows; what is there is not done again."""
    spec, output = written(SLOW), tmp_path / "t.csv"
    argv = [sys.executable, "-m", "toyguide", "sweep", str(spec), "-o", str(output), "--device", "cpu"]
    with subprocess.Popen(argv) as p:
        _wait_for(lambda: Ledger(output, read_sweep(spec)).rows)
        p.kill()
    assert not output.exists()
    code, out, _ = cli(spec, "-o", output, "--device", "cpu", "--json")
    assert code == 0
    assert 0 < json.loads(out)["new"] < 12
    assert table(output) == expected


def _wait_for(condition) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_processes_are_not_waited_for():
    def interrupted():
        with executors.processes(1) as workers:
            _wait_for(workers.submit(time.sleep, 3600).running)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()


def test_a_process_that_dies_is_said_and_the_rows_are_kept(written, cli, tmp_path, expected, monkeypatch):
    honest = Ledger.add

    def add(self, rows):
        multiprocessing.active_children()[0].kill()
        return honest(self, rows)

    monkeypatch.setattr(Ledger, "add", add)
    argv = [written(SLOW), "-o", tmp_path / "t.csv", "--executor", "processes", "--workers", "2", "--device", "cpu"]
    threads = os.environ.get("OMP_NUM_THREADS")
    code, out, err = cli(*argv)
    assert (code, out) == (1, "")
    assert re.fullmatch(
        r"toyguide: the workers are lost \(.*\); [1-9] of 12 rows are kept; run the same again to continue\n", err
    )
    monkeypatch.undo()
    assert os.environ.get("OMP_NUM_THREADS") == threads
    code, out, _ = cli(*argv[:3], "--device", "cpu", "--json")
    assert code == 0
    assert 0 < json.loads(out)["new"] < 12
    assert table(tmp_path / "t.csv") == expected


def test_dask_does_again_what_a_worker_died_at(written, cli, tmp_path, expected, monkeypatch):
    """One of two workers is killed as the first row comes; Dask starts another one, and every row is there once."""
    import distributed

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        before = set(client.run(os.getpid).values())
        came: list[str] = []
        honest = Ledger.add

        def add(self, rows):
            if not came:
                os.kill(min(before), signal.SIGKILL)
            came.extend(row["id"] for row in rows)
            return honest(self, rows)

        monkeypatch.setattr(Ledger, "add", add)
        code, _, err = cli(written(SLOW), "-o", tmp_path / "t.csv", "--scheduler", cluster.scheduler_address)
        assert code == 0, err
        client.wait_for_workers(2, timeout=60)
        after = set(client.run(os.getpid).values())
        with (
            pytest.raises(BrokenExecutor, match="the scheduler does not answer any more"),
            executors.dask(cluster.scheduler_address),
        ):
            raise CancelledError
    assert len(after) == 2
    assert min(before) not in after
    assert len(came) == len(set(came)) == 12
    assert table(tmp_path / "t.csv") == expected
