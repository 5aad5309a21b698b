"""Recorded steps against the same steps run one by one; only where there is a GPU."""

import pytest
import torch

from toyguide._speed.cuda_graphs import Replayed
from toyguide.training import TrainSettings, train

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]


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


def test_recorded_training_learns_what_training_learns(monkeypatch):
    settings = TrainSettings(dataset="two-gaussians", label="left", width=16, layers=2, iterations=300, batch=2048)
    recorded = [step.loss.item() for step in train(settings, "cuda")]
    monkeypatch.setattr("toyguide.training.Replayed", lambda function, generator: function)
    one_by_one = [step.loss.item() for step in train(settings, "cuda")]
    # Losses of batches this large scatter by a few per cent; those of the last steps are averaged over.
    late = [sum(losses[-50:]) / 50 for losses in (recorded, one_by_one)]
    assert late[0] == pytest.approx(late[1], rel=0.1)
    assert late[0] < 0.2 * recorded[0]
    assert len({round(loss, 9) for loss in recorded}) > 290  # a new batch at every step
