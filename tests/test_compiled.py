"""The compiled loops against float64, and what happens where they cannot be had."""

import copy
import hashlib
import os
import subprocess
import sys
import textwrap

import pytest
import torch

from toyguide import __version__, load_dataset, load_model
from toyguide._speed import compiled
from toyguide.fields.components import Components
from toyguide.fields.mixtures import GaussianMixture
from toyguide.fields.networks import EnergyMLP

pytestmark = pytest.mark.skipif(compiled.loops() is None, reason="no C compiler")


def exploded(*_args):
    raise AssertionError("the compiled loop was to be used")


def only_compiled_mixtures(monkeypatch):
    monkeypatch.setattr(GaussianMixture, "_shared", exploded)
    monkeypatch.setattr(Components, "_blockwise", exploded)


@pytest.fixture
def compiled_only(monkeypatch):
    """Nothing but the compiled loops may answer in float32."""
    monkeypatch.setattr("toyguide.fields.networks._gradient", exploded)
    only_compiled_mixtures(monkeypatch)


def in_torch(method, *arguments):
    """The same without compiled loops."""
    with compiled.without():
        return method(*arguments)


def scaled_error(found, exact, scale):
    return float(((found.double() - exact).norm(dim=-1) * scale).max())


@pytest.mark.parametrize("label", [None, "A"])
@pytest.mark.parametrize("sigma", [0.0, 0.002, 0.05, 0.7, 5.0, 80.0])
def test_mixture_agrees_with_float64_at_every_level(label, sigma, monkeypatch):
    field = load_dataset("fractal").field(label)
    x = field.sample(1001, sigma, torch.Generator().manual_seed(0)).float()
    methods = field.score, field.log_density, field.hessian
    score, log_density, hessian = (in_torch(method, x.double(), sigma) for method in methods)
    only_compiled_mixtures(monkeypatch)
    # A score is judged in units of what a component's width at this level makes of one standard deviation; each of its
    # some ten operations rounds by 6e-8, at up to ten standard deviations.
    width = float((torch.linalg.eigvalsh(field.covariances).min() + sigma**2).sqrt())
    assert scaled_error(field.score(x, sigma), score, width) < 1e-5
    assert (field.log_density(x, sigma).double() - log_density).abs().max() < 3e-5
    # Two gradients of up to ten standard deviations are multiplied.
    assert (field.hessian(x, sigma).double() - hessian).abs().max() * width**2 < 1e-4

    # In float64 the two ways differ by its own roundings, 5e8 times smaller.
    x = x.double()
    assert scaled_error(field.score(x, sigma), score, width) < 1e-12
    assert (field.log_density(x, sigma) - log_density).abs().max() < 1e-12
    assert (field.hessian(x, sigma) - hessian).abs().max() * width**2 < 1e-11


def test_mixture_with_a_level_for_each_point_and_from_far_away(monkeypatch):
    field = load_dataset("fractal").field("A")
    g = torch.Generator().manual_seed(1)
    sigma = torch.logspace(-3, 2, 2 * 999).view(2, 999)
    x = torch.randn(2, 999, 2, generator=g) * torch.logspace(-1, 8, 999)[:, None]
    exact = (in_torch(method, x.double(), sigma.double()) for method in (field.score, field.log_density))
    exact = tuple(exact)
    only_compiled_mixtures(monkeypatch)
    found = field.score(x, sigma), field.log_density(x, sigma)
    assert found[0].shape == (2, 999, 2)
    # Where two components are equally likely from afar, which of them wins turns on float32's last digit.
    error = (found[0] - exact[0]).norm(dim=-1) / exact[0].norm(dim=-1)
    assert error.median() < 1e-6
    assert (error < 1e-3).double().mean() > 0.99
    torch.testing.assert_close(found[1].double(), exact[1], rtol=1e-5, atol=1e-4)


def test_means_keep_the_digits_that_float32_has_no_room_for(random_mixture):
    """This far from the origin a rounded mean would be off by some 3e-5 standard deviations."""
    near = random_mixture(2)
    field = GaussianMixture(near.weights, near.means + 1000 / 3, near.covariances)
    x = field.sample(500, 0.0, torch.Generator().manual_seed(0)).float()
    exact = in_torch(field.score, x.double(), 0.0)
    width = float(torch.linalg.eigvalsh(field.covariances).min().sqrt())
    assert scaled_error(field.score(x, 0.0), exact, width) < 3e-6


def test_mixtures_that_float32_cannot_hold_are_left_to_torch():
    eye = torch.eye(2, dtype=torch.float64)
    means = torch.tensor([[0.0, 0.0], [3.0, 0.0]])
    apart = GaussianMixture(torch.tensor([1.0, 1.0]), means, torch.stack([1e-16 * eye, eye]))
    assert not apart._planes
    close = GaussianMixture(torch.tensor([1.0, 1e-3]), means, torch.stack([1e-4 * eye, eye]))
    assert close._planes
    x = torch.tensor([[1e10, 0.0], [0.5, 0.5]])
    for field in (apart, close):
        exact = field.score(x.double(), 0.1)
        torch.testing.assert_close(field.score(x, 0.1).double(), exact, rtol=1e-5, atol=1e-6)


def test_points_that_are_not_finite_disturb_no_other():
    field, network = load_dataset("fractal").field("A"), load_model("fractal/main")
    x = torch.tensor([[0.1, 0.2], [torch.nan, 0.0], [0.3, -torch.inf], [0.3, 0.4]])
    for score in (field.score, network.score):
        found = score(x, 0.3)
        assert found[1].isnan().any()
        torch.testing.assert_close(found[[0, 3]], score(x[[0, 3]], 0.3), rtol=1e-5, atol=1e-5)


def small_network(width, layers, labels=()):
    g = torch.Generator().manual_seed(width + layers)
    network = EnergyMLP(3, width, layers, torch.tensor([0.5, 0.8, 0.3]), labels, g).requires_grad_(False)
    network.gain.fill_(0.7)
    return network


@pytest.mark.parametrize("width", [1, 7, 16, 40, 64])
@pytest.mark.parametrize("layers", [1, 2, 4])
@pytest.mark.parametrize("n", [1, 24, 101])
def test_network_agrees_with_float64(width, layers, n, compiled_only):
    network = small_network(width, layers)
    exact = copy.deepcopy(network).double()
    x = 3 * torch.randn(n, 3, generator=torch.Generator().manual_seed(0))
    for sigma in (0.01, 0.5, 20.0):
        # float64 always goes through torch, by the Hessian's way too: its first row is what autograd would give.
        expected = autograd_score(exact, x.double(), torch.full((n,), sigma, dtype=torch.float64))
        for level in (sigma, torch.full((n,), sigma)):
            found = network.score(x, level)
            assert found.shape == (n, 3)
            assert scaled_error(found, expected, 1 / expected.norm(dim=1).max()) < 3e-6


def autograd_score(network, x, sigma):
    x = x.clone().requires_grad_()
    return torch.autograd.grad(network.log_density(x, sigma).sum(), x)[0]


def test_labels_and_levels_of_their_own(compiled_only):
    network = small_network(24, 3, ("a", "b", "c")).with_label("b")
    exact = copy.deepcopy(network).double()
    x = torch.randn(2, 50, 3, generator=torch.Generator().manual_seed(0))
    sigma = torch.logspace(-2, 1, 100).view(2, 50)
    expected = autograd_score(exact, x.double(), sigma.double())
    found = network.score(x, sigma)
    assert ((found - expected).norm(dim=-1) / expected.norm(dim=-1)).max() < 1e-4
    assert (found - network.with_label("a").score(x, sigma)).abs().max() > 1e-2


def test_weights_that_change_are_seen(compiled_only):
    network = small_network(24, 2)
    x = torch.randn(30, 3, generator=torch.Generator().manual_seed(0))
    before = network.score(x, 0.5)
    network.weights[1].mul_(torch.linspace(-1, 1, 24)[:, None])
    after = network.score(x, 0.5)
    assert (after - before).abs().max() > 1e-2
    expected = autograd_score(copy.deepcopy(network).double(), x.double(), torch.full((30,), 0.5).double())
    assert scaled_error(after, expected, 1 / expected.norm(dim=1).max()) < 3e-6


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_shares_make_up_the_whole(threads, monkeypatch):
    monkeypatch.setattr(compiled, "_THREADS", threads)
    compiled._pool.cache_clear()
    for n in (0, 1, 7, 100):
        done = []
        compiled.run_parallel(lambda begin, end, done=done: done.extend(range(begin, end)), n, 3)
        assert sorted(done) == list(range(n))
    compiled._pool.cache_clear()


def test_what_fails_in_a_thread_is_told(monkeypatch):
    monkeypatch.setattr(compiled, "_THREADS", 2)

    def work(begin, end):
        if begin:
            raise MemoryError

    with pytest.raises(MemoryError):
        compiled.run_parallel(work, 100, 3)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_child_has_threads_of_its_own():
    code = """
import multiprocessing, torch
from toyguide import load_model
from toyguide._speed import compiled
torch.set_num_threads(1)  # torch's own threads do not live through a fork
compiled._THREADS = 2
network, x = load_model("fractal/main"), torch.zeros(5000, 2)
network.score(x, 0.3)
child = multiprocessing.get_context("fork").Process(target=network.score, args=(x, 0.3), daemon=True)
child.start()
child.join(20)
print(child.exitcode)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "0"


def library_of(**environment):
    """Whether a new process has the compiled loops."""
    code = "from toyguide._speed import compiled; print(compiled.loops() is not None)"
    env = {k: v for k, v in os.environ.items() if k != "TOYGUIDE_NATIVE"} | environment
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=True)
    assert not done.stderr
    return done.stdout.strip() == "True"


def test_kept_between_starts_and_nothing_half_made(tmp_path):
    assert library_of(XDG_CACHE_HOME=str(tmp_path))
    (kept,) = (tmp_path / "toyguide").iterdir()
    made = kept.stat().st_mtime_ns
    assert library_of(XDG_CACHE_HOME=str(tmp_path))
    assert kept.stat().st_mtime_ns == made
    assert (tmp_path / "toyguide").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("size", [0, 8192])
def test_a_damaged_library_is_compiled_again(tmp_path, size):
    assert library_of(XDG_CACHE_HOME=str(tmp_path))
    (kept,) = (tmp_path / "toyguide").iterdir()
    whole = kept.read_bytes()
    assert len(whole) > 8192
    os.truncate(kept, size)
    assert library_of(XDG_CACHE_HOME=str(tmp_path))
    (kept,) = (tmp_path / "toyguide").iterdir()
    assert hashlib.sha256(kept.read_bytes()).hexdigest().startswith(kept.stem.rpartition("-")[2])
    assert len(kept.read_bytes()) == len(whole)


def test_the_version_says_whether_loops_are_compiled():
    for native, words in (("1", "(compiled loops)"), ("0", "(no compiled loops, all in torch)")):
        command = [sys.executable, "-m", "toyguide", "--version"]
        env = os.environ | {"TOYGUIDE_NATIVE": native}
        done = subprocess.run(command, capture_output=True, text=True, env=env, check=True)
        assert done.stdout == f"toyguide {__version__} {words}\n"


def test_without_a_compiler_or_unwanted_there_is_none(tmp_path):
    assert not library_of(XDG_CACHE_HOME=str(tmp_path), PATH=str(tmp_path), CC="none")
    assert not library_of(XDG_CACHE_HOME=str(tmp_path), TOYGUIDE_NATIVE="0")
    broken = tmp_path / "cc"
    broken.write_text(textwrap.dedent('#!/bin/sh\n[ "$1" = --version ] && echo one that fails && exit 0\nexit 1\n'))
    broken.chmod(0o755)
    assert not library_of(XDG_CACHE_HOME=str(tmp_path), CC=str(broken))
    assert not list((tmp_path / "toyguide").iterdir())


def test_a_cache_that_others_may_write_to_is_not_trusted(tmp_path):
    folder = tmp_path / "toyguide"
    folder.mkdir()
    folder.chmod(0o777)
    assert not library_of(XDG_CACHE_HOME=str(tmp_path))
