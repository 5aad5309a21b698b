"""The command line: what it prints and writes, and one line with exit code 2 for everything wrong."""

from __future__ import annotations

import fcntl
import json
import os
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
import urllib.error
import urllib.request

import numpy as np
import pytest
import torch

import toyguide as tg
from toyguide.cli import main
from toyguide.experiment import Result

SMALL = [
    "--dataset",
    "two-gaussians",
    "--label",
    "left",
    "--main",
    "exact",
    "--n",
    "24",
    "--steps",
    "4",
    "--device",
    "cpu",
]


@pytest.fixture
def cli(capsys):
    """Runs one command line in this process: exit code, stdout, stderr."""

    def run(*argv):
        code = main([str(a) for a in argv])
        out, err = capsys.readouterr()
        return code, out, err

    return run


def process(*argv, **settings):
    """The same in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "toyguide", *map(str, argv)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **settings,
    )


def refused(result, complaint):
    code, out, err = result
    assert code == 2
    assert out == ""
    assert err.startswith("toyguide: ")
    assert err.endswith("\n")
    assert err.count("\n") == 1, err
    assert re.search(complaint, err), err


@pytest.fixture
def run_file(cli, tmp_path):
    assert cli("sample", *SMALL, "-o", tmp_path / "run.npz")[0] == 0
    return tmp_path / "run.npz"


# Getting in


def test_alone_it_helps(cli):
    code, out, _ = cli()
    assert code == 0
    for command in ("app", "metrics", "plot", "rules", "sample", "train"):
        assert re.search(rf"^ +{command} +\w", out, re.MULTILINE), command


def test_version_and_help(capsys):
    for argv, expected in (
        (["--version"], f"toyguide {tg.__version__}"),
        (["sample", "--help"], "usage: toyguide sample"),
    ):
        with pytest.raises(SystemExit) as left:
            main(argv)
        assert left.value.code == 0
        assert capsys.readouterr().out.startswith(expected)


@pytest.mark.parametrize(
    ("argv", "complaint"),
    [
        (["smaple"], r"unknown command 'smaple': expected one of animate, app, .*did you mean 'sample'\?"),
        (["--vresion"], r"unknown flag of toyguide '--vresion': .*did you mean '--version'\?"),
        (["rules", "--jsn"], r"unknown flag of toyguide rules '--jsn': .*did you mean '--json'\?"),
        (
            ["rules", "--jso"],
            r"unknown flag of toyguide rules '--jso'",
        ),  # no abbreviations: a new flag would break them
        (["rules", "cfgg"], "unknown rule 'cfgg': .*did you mean 'cfg'"),
        (["rules", "cfg", "surplus"], "unexpected argument 'surplus'"),
        (["sample"], "arguments are required: -o/--output"),
        (["metrics"], "arguments are required: RUN.npz"),
        (["sample", "-o"], "expected one argument"),
    ],
)
def test_wrong_command_lines(cli, argv, complaint):
    refused(cli(*argv), complaint)


# rules


def test_rules_as_json(cli):
    code, out, _ = cli("rules", "--json")
    listed = json.loads(out)
    assert code == 0
    assert [r["name"] for r in listed] == list(tg.rules())
    for r in listed:
        cls = tg.rules()[r["name"]]
        assert (r["title"], r["needs"], r["source"]) == (cls.title, list(cls.needs), cls.source)
        defaults = {name: p["default"] for name, p in r["parameters"].items()}
        assert tg.rule(r["name"], **defaults) == cls()
        for name, p in r["parameters"].items():
            assert p["doc"]
            for bound in p.get("bounds") or p.get("choices", []):  # inside; what is beyond them is not
                if bound is None:  # infinity, which JSON does not have
                    continue
                assert getattr(tg.rule(r["name"], **{name: bound}), name) == bound


def test_rules_as_text(cli):
    code, out, _ = cli("rules")
    assert code == 0
    for cls in tg.rules().values():
        assert f"{cls.key}: {cls.title}" in out
    assert "w = 4.0 (a number from 0.0 to 30.0)" in out


# sample


def test_sample_is_the_library_call(cli, tmp_path):
    rule = ["--rule", "cfg", "--set", "w=2.5", "--interval", "0.05,2", "--sampler", "euler", "--seed", "3"]
    levels = ["--sigma-min", "0.01", "--sigma-max", "4", "--rho", "5"]
    code, out, err = cli("sample", *SMALL, *rule, *levels, "-o", tmp_path / "run.npz")
    e = tg.Experiment(
        dataset="two-gaussians", label="left", main="exact", n=24, steps=4, rule="cfg", params={"w": 2.5},
        interval=(0.05, 2.0), sampler="euler", seed=3, sigma_min=0.01, sigma_max=4.0, rho=5.0,
    )  # fmt: skip
    r = e.run("cpu")
    assert (code, err) == (0, "")
    assert f"24 trajectories, {r.nfe:g} evaluations each" in out
    assert "0 diverged" in out
    with np.load(tmp_path / "run.npz", allow_pickle=False) as arrays:
        assert np.array_equal(arrays["x"], r.x.numpy())
        assert np.array_equal(arrays["sigma"], r.sigma.numpy())
        assert tg.Experiment.from_json(str(arrays["experiment"])) == e


def test_sample_reports_json(cli, tmp_path):
    code, out, _ = cli("sample", *SMALL, "--rule", "sfg", "--set", "sign=score", "--json", "-o", tmp_path / "run.npz")
    report = json.loads(out)
    assert code == 0
    assert (report["file"], report["nfe"], report["diverged"]) == (str(tmp_path / "run.npz"), 14, 0)
    assert report["seconds"] == Result.load(tmp_path / "run.npz").seconds
    assert tg.Experiment(**report["experiment"]) == Result.load(tmp_path / "run.npz").experiment
    assert report["experiment"]["params"]["sign"] == "score"


def test_sample_takes_a_whole_experiment(cli, tmp_path, monkeypatch):
    e = tg.Experiment(dataset="two-gaussians", label="left", main="exact", n=24, steps=4, rule="cfg", params={"w": 2.0})
    (tmp_path / "e.json").write_text(e.to_json())

    def sampled(*more):
        assert cli("sample", "--device", "cpu", "-o", tmp_path / "run.npz", "--experiment", *more)[0] == 0
        return Result.load(tmp_path / "run.npz").experiment

    assert sampled(tmp_path / "e.json") == e
    with (tmp_path / "e.json").open() as file:
        monkeypatch.setattr(sys, "stdin", file)
        assert sampled("-") == e
    # Flags change it; another rule does not get this one's parameters.
    assert sampled(tmp_path / "e.json", "--seed", "5").seed == 5
    assert sampled(tmp_path / "e.json", "--seed", "5").params == {"w": 2.0}
    assert sampled(tmp_path / "e.json", "--set", "w=7").params == {"w": 7.0}
    assert sampled(tmp_path / "e.json", "--rule", "autoguidance").params == {"w": 3.0}


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["--rule", "cfgg"], r"unknown --rule 'cfgg': .*did you mean 'cfg'\?"),
        (["--rule", "cfg", "--set", "w"], "--set 'w': expected NAME=VALUE, like w=3"),
        (["--rule", "cfg", "--set", "=3"], "--set '=3': expected NAME=VALUE"),
        (["--rule", "cfg", "--set", "w=much"], "cfg: w = 'much': expected a number from 0.0 to 30.0"),
        (["--rule", "cfg", "--set", "w=nan"], "cfg: w = nan: expected a number"),
        (["--rule", "cfg", "--set", "v=3"], "unknown parameter of cfg 'v'"),
        (["--set", "w=3"], "unknown parameter of none 'w'"),
        (["--interval", "3"], "'3': expected two noise levels, LOW,HIGH"),
        (["--interval", "3,1"], "0 <= low < high"),
        (["--interval", "a,b"], "'a,b': expected two noise levels"),
        (["--steps", "four"], "--steps 'four': expected a whole number"),
        (["--steps", "0"], "steps = 0: expected a whole number from 1"),
        (["--n", "1e3"], "--n '1e3': expected a whole number"),
        (["--rho", "x"], "--rho 'x': expected a number"),
        (["--sampler", "huen"], r"unknown sampler 'huen': .*did you mean 'heun'\?"),
        (["--dataset", "two-gausians"], r"unknown dataset .*did you mean 'two-gaussians'\?"),
        (["--label", "lefft"], r"unknown label .*did you mean 'left'\?"),
        (["--main", "exat"], r"unknown field 'exat': .*did you mean 'exact'\?"),
        (["--weak", "nothing.safetensors", "--rule", "autoguidance"], "model 'nothing.safetensors': no such file"),
        (["--device", "gpu"], r"unknown --device 'gpu': expected one of auto, cpu, cuda"),
        (["--sigma-max", "0.001"], "sigma range 0.002 … 0.001: expected .*sigma_min < sigma_max"),
        (["--experiment", "nothing.json"], "experiment 'nothing.json': cannot be read"),
        (["--experiment", __file__], "experiment: not JSON"),
        (["--steps", "5", "--stepz", "4"], r"unknown flag of toyguide sample '--stepz': .*did you mean '--steps'\?"),
        (["-o", "run.txt"], "output 'run.txt': expected a name that ends in .npz"),
        (["-o", "no/such/run.npz"], "output 'no/such/run.npz': the folder 'no/such' does not exist"),
    ],
)
def test_wrong_samples_are_refused_before_anything_is_written(cli, tmp_path, monkeypatch, flags, complaint):
    monkeypatch.chdir(tmp_path)
    refused(cli("sample", *SMALL, "-o", "run.npz", *flags), complaint)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_found_before_the_run(cli, tmp_path, monkeypatch):
    monkeypatch.setattr(tg.Experiment, "run", lambda *_, **__: pytest.fail("it ran"))
    monkeypatch.setattr(os, "access", lambda *_: False)
    refused(cli("sample", *SMALL, "-o", tmp_path / "run.npz"), "is not writable")


def test_divergence_is_a_warning(cli, tmp_path, monkeypatch):
    """Two trajectories of a finished run are made to end outside the finite numbers."""
    honest = tg.Experiment.run

    def run(self, *args, **settings):
        r = honest(self, *args, **settings)
        r.x[-1, :2, 0] = torch.tensor([torch.inf, torch.nan])
        return r

    monkeypatch.setattr(tg.Experiment, "run", run)
    code, out, err = cli("sample", *SMALL, "-o", tmp_path / "run.npz")
    assert code == 0
    assert "2 diverged" in out
    assert err == "toyguide: warning: 2 of 24 trajectories diverged\n"
    assert json.loads(cli("metrics", tmp_path / "run.npz", "--json")[1])["diverged"] == 2


# metrics


def test_metrics_as_json(cli, run_file):
    code, out, _ = cli("metrics", run_file, "--json", "--resamples", "20")
    found, expected = json.loads(out), Result.load(run_file).metrics(resamples=20)
    assert code == 0
    intervals = expected.pop("intervals")
    for name, value in expected.items():
        assert found[name] == value, name
    for name, (low, high) in intervals.items():
        assert (found[f"{name}_low"], found[f"{name}_high"]) == (low, high)
    assert not any(isinstance(v, dict | list) for v in found.values()), "flat"
    # The reference is measured on exact samples: near the truth, whatever the run is like.
    assert found["class_leak_reference"] < 0.1


def test_metrics_as_a_table(cli, run_file):
    code, out, _ = cli("metrics", run_file)
    measured = Result.load(run_file).metrics()
    assert code == 0
    lines = out.splitlines()
    assert len({len(line) for line in lines}) == 1, "aligned"
    (outliers,) = (line for line in lines if line.startswith("Outliers"))
    low, high = measured["intervals"]["outliers"]
    assert outliers.split()[1:5] == [f"{measured['outliers']:.3f}", f"{low:.3f}", "…", f"{high:.3f}"]
    assert "…" not in cli("metrics", run_file, "--resamples", "0")[1].split("\n", 1)[1]


def test_wrong_metrics(cli, run_file, tmp_path):
    refused(cli("metrics", "nothing.npz"), "run 'nothing.npz': no such file")
    refused(cli("metrics", __file__), "run .*: damaged, or not written by toyguide sample")
    refused(cli("metrics", run_file, "--resamples", "-1"), "--resamples -1: expected a whole number from 0")


# As a process


def test_it_runs_as_a_module_and_stops_at_a_closed_pipe():
    """Nobody reads: no traceback, and an exit code that says so."""
    with process("rules", "--json", env={**os.environ, "PYTHONUNBUFFERED": "1"}) as p:
        p.stdout.close()
        assert p.wait(60) == 141
        assert p.stderr.read() == ""


def test_progress_is_shown_and_ctrl_c_leaves_nothing_behind(tmp_path):
    """On a terminal there is a bar of steps; once it moves, Ctrl-C."""
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))  # rows and columns; a new one has none
    argv = ["sample", "--main", "exact", "--n", "5000", "--steps", "500", "-o", str(tmp_path / "run.npz")]
    with subprocess.Popen([sys.executable, "-m", "toyguide", *argv], stdout=subprocess.PIPE, stderr=theirs) as p:
        os.close(theirs)
        shown = ""
        while not re.search(r" [1-9]\d*/501 ", shown):
            assert select.select([ours], [], [], 120)[0], "nothing is shown"
            shown += os.read(ours, 4096).decode()
        p.send_signal(signal.SIGINT)
        assert p.wait(60) == 130
    shown = os.read(ours, 65536).decode()
    os.close(ours)
    assert shown.endswith("toyguide: interrupted\r\n")
    assert "Traceback" not in shown
    assert list(tmp_path.iterdir()) == []


# app


def test_app_serves_until_it_is_stopped():
    with process("app", "--port", 0) as p:
        url = re.search(r"http://127\.0\.0\.1:\d+/explorer", p.stdout.readline()).group()
        page = urllib.request.urlopen(url, timeout=30).read().decode()
        assert "<html" in page
        # / leads there: as a redirect, or as a page that is the explorer's.
        assert urllib.request.urlopen(url.removesuffix("/explorer"), timeout=30).url == url
        # Another site's page must not open a session here.
        for origin, status in ((url.removesuffix("/explorer"), 101), ("http://elsewhere.example", 403)):
            assert handshake(url, page, origin) == status

        port = url.split(":")[2].split("/")[0]
        with process("app", "--port", port) as second:
            out, err = second.communicate(timeout=60)
            refused((second.returncode, out, err), rf"--port {port}: is taken, expected a free one, like \d+")
        p.send_signal(signal.SIGINT)
        assert p.wait(30) == 0


def handshake(url: str, page: str, origin: str) -> int:
    """The HTTP status of a WebSocket handshake from a page of ``origin``."""
    token = re.search(r'"token":"([^"]+)"', page).group(1)
    request = urllib.request.Request(
        f"{url}/ws",
        headers={
            "Origin": origin,
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": "dG95Z3VpZGUgdG95Z3VpZA==",
            "Sec-WebSocket-Protocol": f"bokeh, {token}",
        },
    )
    host, port = re.match(r"http://([\d.]+):(\d+)", url).groups()
    lines = [f"GET /explorer/ws HTTP/1.1\r\nHost: {host}:{port}\r\n"]
    lines += [f"{k}: {v}\r\n" for k, v in request.headers.items()]
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall("".join([*lines, "\r\n"]).encode())
        return int(connection.recv(64).split()[1])


def test_wrong_addresses(cli):
    refused(cli("app", "--port", "99999"), "--port 99999: expected a whole number from 0 to 65535")
    refused(cli("app", "--port", "high"), "--port 'high': expected a whole number")
    refused(cli("app", "--address", "192.0.2.1"), "--address '192.0.2.1': expected an address of this machine")


def test_without_panel_it_says_what_to_install(cli, monkeypatch):
    import importlib.util

    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "panel" else found(name, *a))
    refused(cli("app"), r"needs Panel, which is not installed: expected pip install 'toyguide\[app\]'")
