"""Recorded steps against the same steps run one by one; where there is no GPU, a stand-in records and replays."""

from contextlib import contextmanager

import pytest
import torch

from toyguide._speed.cuda_graphs import Replayed
from toyguide.fields.networks import EnergyMLP
from toyguide.training import TrainSettings, train


def on_a_gpu(test):
    return pytest.mark.gpu(pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")(test))


class StandIn:
    """A graph of tensors on the CPU: replaying writes their numbers but, like CUDA's, leaves their versions."""

    def register_generator_state(self, generator):
        pass

    def replay(self):
        with torch.autograd._unsafe_preserve_version_counter(self.touched):
            self.function()


@pytest.fixture
def stand_in(monkeypatch):
    """Replayed with the stand-in; yields a way to have the next capture fail."""
    failing = []

    @contextmanager
    def capture(graph, capture_error_mode):
        assert capture_error_mode == "thread_local"
        if failing:
            raise failing.pop()
        yield

    monkeypatch.setattr(torch.cuda, "CUDAGraph", StandIn)
    monkeypatch.setattr(torch.cuda, "graph", capture)
    monkeypatch.setattr(Replayed, "_aside", lambda self: self._function())
    return failing


def replayed(function, changed, monkeypatch):
    monkeypatch.setattr(StandIn, "function", staticmethod(function), raising=False)
    monkeypatch.setattr(StandIn, "touched", tuple(changed), raising=False)
    return Replayed(function, torch.Generator(), changed)


def test_what_is_kept_for_a_network_follows_replayed_steps(stand_in, monkeypatch):
    """The scores of the network that a recorded training changes are those of its weights at each step."""
    network = EnergyMLP(2, 8, 1, torch.ones(2), generator=torch.Generator().manual_seed(0)).requires_grad_(False)

    def change():
        network.gain.add_(0.1)
        return network.gain.sum()

    step = replayed(change, list(network.parameters()), monkeypatch)
    x = torch.randn(5, 2, generator=torch.Generator().manual_seed(1))
    for _ in range(8):
        step()
        fresh = EnergyMLP(2, 8, 1, torch.ones(2)).requires_grad_(False)
        fresh.load_state_dict(network.state_dict())
        assert torch.equal(network.score(x, 0.5), fresh.score(x, 0.5))


def test_a_capture_that_fails_is_tried_again(stand_in, monkeypatch):
    count = torch.zeros(())
    step = replayed(lambda: count.add_(1), [count], monkeypatch)
    for _ in range(3):
        step()
    stand_in.append(RuntimeError("the capture failed"))
    with pytest.raises(RuntimeError, match="the capture failed"):
        step()
    before = float(count)
    step()
    assert float(count) > before


@on_a_gpu
def test_every_call_counts_and_draws_anew():
    generator = torch.Generator("cuda").manual_seed(0)
    total, by = torch.zeros((), device="cuda"), torch.ones((), device="cuda")
    drawn = []

    def add():
        total.add_(by)
        drawn.append(torch.rand((), device="cuda", generator=generator))
        return total + 0 * drawn[-1]

    step = Replayed(add, generator)
    seen, numbers = [], []
    for call in range(10):
        by.fill_(1.0 if call < 6 else 10.0)
        seen.append(float(step()))
        numbers.append(float(drawn[-1]))
    assert seen == [1, 2, 3, 4, 5, 6, 16, 26, 36, 46]
    assert len(set(numbers)) == 10


@on_a_gpu
@pytest.mark.parametrize("labels", [{"label": "left"}, {"conditional": True}])
def test_recorded_training_learns_what_training_learns(labels, monkeypatch):
    settings = TrainSettings(dataset="two-gaussians", **labels, width=16, layers=2, iterations=300, batch=2048)
    recorded = [step.loss.item() for step in train(settings, "cuda")]
    monkeypatch.setattr("toyguide.training.Replayed", lambda function, generator, changed: function)
    one_by_one = [step.loss.item() for step in train(settings, "cuda")]
    # Losses of batches this large scatter by a few per cent; those of the last steps are averaged over.
    late = [sum(losses[-50:]) / 50 for losses in (recorded, one_by_one)]
    assert late[0] == pytest.approx(late[1], rel=0.1)
    assert late[0] < 0.2 * recorded[0]
    assert len({round(loss, 9) for loss in recorded}) > 290  # a new batch at every step
