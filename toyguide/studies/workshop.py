"""What the runs of studies share: the plan, the networks trained so far, and how an experiment is measured.

Networks are kept in a folder by a digest of their settings, so that a study that was interrupted, and another study
that needs the same network, find them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from toyguide.datasets.checkpoints import load_model, save_model
from toyguide.errors import InputError
from toyguide.experiment import Experiment, Result
from toyguide.fields.networks import EnergyMLP
from toyguide.studies.plan import Plan
from toyguide.training import TrainSettings, TrainStep, train

__all__ = ["Workshop", "training_cost"]

Watch = Callable[[Iterator[TrainStep]], Iterable[TrainStep]]


def training_cost(settings: TrainSettings) -> float:
    """Roughly how long a training takes, in seconds on two cores: measured at width 64 and batch 4096, and scaled."""
    return 0.024 * settings.iterations * (settings.batch / 4096) * (settings.width / 64) ** 1.3 + 0.5


class Workshop:
    """Where studies work.

    Args:
        plan: How much is run.
        networks: The folder of trained networks.
        watch: Wraps the steps of a training as they come: a progress bar, or a way to stop.
    """

    def __init__(self, plan: Plan, networks: Path, watch: Watch = iter) -> None:
        self.plan, self.networks, self.watch = plan, networks, watch

    def has(self, settings: TrainSettings) -> bool:
        """Whether a network is trained already."""
        return all(self._path(settings, sigma_rel).is_file() for sigma_rel in settings.ema)

    def train(self, settings: TrainSettings) -> None:
        """Train a network, unless it is trained already."""
        if self.has(settings):
            return
        self.networks.mkdir(parents=True, exist_ok=True)
        losses: list[float] = []
        for step in self.watch(train(settings, self.plan.device)):
            if step.iteration > settings.iterations - 64:
                losses.append(float(step.loss))
        record = {
            "settings": asdict(settings),
            "iterations": step.iteration,
            "final_loss": sum(losses) / len(losses),
            "seconds": round(step.seconds, 1),
        }
        for sigma_rel, average in step.averages.items():
            save_model(average, self._path(settings, sigma_rel), {**record, "ema": sigma_rel})

    def reference(self, settings: TrainSettings, sigma_rel: float | None = None) -> str:
        """What an experiment calls a trained network by: its path.

        Args:
            settings: How it was trained.
            sigma_rel: Which of its averages; None for the first.

        Raises:
            InputError: If it is not trained: a study's cell names the networks that it needs.
        """
        path = self._path(settings, settings.ema[0] if sigma_rel is None else sigma_rel)
        if not path.is_file():
            raise InputError(f"network {str(path)!r}: is not trained: expected it among the needs of the run")
        return str(path)

    def network(self, settings: TrainSettings, sigma_rel: float | None = None) -> EnergyMLP:
        """A trained network itself."""
        return load_model(self.reference(settings, sigma_rel))

    def run(self, experiment: Experiment) -> Result:
        """Run an experiment on the plan's device."""
        return experiment.run(self.plan.device)

    def measure(self, experiment: Experiment, *names: str) -> dict[str, float]:
        """The metrics of an experiment's final samples, without intervals: those come from the seeds.

        Args:
            experiment: What to run.
            names: Which metrics; none for the usual ones.
        """
        found = self.run(experiment).metrics(resamples=0)
        wanted = names or ("outliers", "coverage", "dropped_mass", "tips", "log_density", "sliced_w2", "class_leak")
        return {name: float(found[name]) for name in wanted if found.get(name) is not None}

    def _path(self, settings: TrainSettings, sigma_rel: float) -> Path:
        shared: dict[str, Any] = {k: v for k, v in asdict(settings).items() if k != "ema"}
        text = json.dumps({**shared, "average": sigma_rel}, sort_keys=True)
        label = settings.label or ("conditional" if settings.conditional else "union")
        digest = hashlib.sha256(text.encode()).hexdigest()[:12]
        stem = Path(settings.dataset.partition("?")[0]).name
        return self.networks / f"{stem}-{label}-w{settings.width}-i{settings.iterations}-{digest}.safetensors"
