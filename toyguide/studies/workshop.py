"""What the cells of studies share: the plan, the trained networks, and the running of experiments.

A study refers to a network that it trains by a name, ``networks/NAME.safetensors``, which contains a digest of the
training settings. The workshop keeps the files in a folder by these names, so an interrupted study, and another study
that needs the same network, find them.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from toyguide.datasets.checkpoints import load_model, save_model
from toyguide.errors import InputError
from toyguide.experiment import Experiment, Result
from toyguide.fields import Field
from toyguide.fields.networks import EnergyMLP
from toyguide.studies.plan import Plan
from toyguide.training import TrainSettings, TrainStep, train

__all__ = ["Workshop", "trained", "training_cost"]

Watch = Callable[[TrainSettings, Iterator[TrainStep]], Iterable[TrainStep]]
_NAME = re.compile(r"networks/([^/]+\.safetensors)")


def trained(settings: TrainSettings, sigma_rel: float | None = None) -> str:
    """The reference of a network that is trained with these settings, for the fields of a study's experiment.

    Args:
        settings: The training settings.
        sigma_rel: The length of the average; None for the first of the settings.
    """
    # Without an auxiliary read-out the digest is that from before there were any.
    shared: dict[str, Any] = {k: v for k, v in asdict(settings).items() if k != "ema" and (k, v) != ("auxiliary", None)}
    average = settings.ema[0] if sigma_rel is None else sigma_rel
    text = json.dumps({**shared, "average": average}, sort_keys=True)
    label = settings.label or ("conditional" if settings.conditional else "union")
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    stem = Path(settings.dataset.partition("?")[0]).name
    return f"networks/{stem}-{label}-w{settings.width}-i{settings.iterations}-{digest}.safetensors"


def training_cost(settings: TrainSettings) -> float:
    """Roughly how long a training takes, in seconds on two cores: scaled from width 64 and batch 4096."""
    return 0.024 * settings.iterations * (settings.batch / 4096) * (settings.width / 64) ** 1.3 + 0.5


class Workshop:
    """Trains networks, and runs the experiments that refer to them.

    Args:
        plan: How much is run.
        networks: The folder of trained networks.
        watch: Wraps the steps of a training as they come: for a progress bar, or to stop it.
    """

    def __init__(self, plan: Plan, networks: Path, watch: Watch = lambda settings, steps: steps) -> None:
        self.plan, self.networks, self.watch = plan, networks.absolute(), watch

    def has(self, settings: TrainSettings) -> bool:
        """Whether a network is trained."""
        return all(self._path(trained(settings, sigma_rel)).is_file() for sigma_rel in settings.ema)

    def train(self, settings: TrainSettings) -> None:
        """Train a network, unless it is trained."""
        if self.has(settings):
            return
        self.networks.mkdir(parents=True, exist_ok=True)
        losses: list[float] = []
        for step in self.watch(settings, train(settings, self.plan.device)):
            if step.iteration > settings.iterations - 64:
                losses.append(float(step.loss))
        record = {
            "settings": asdict(settings),
            "iterations": step.iteration,
            "final_loss": sum(losses) / len(losses),
            "seconds": round(step.seconds, 1),
        }
        for sigma_rel, average in step.averages.items():
            save_model(average, self._path(trained(settings, sigma_rel)), {**record, "ema": sigma_rel})

    def network(self, settings: TrainSettings, sigma_rel: float | None = None) -> EnergyMLP:
        """A trained network.

        Raises:
            InputError: If it is not trained.
        """
        return load_model(self._located(trained(settings, sigma_rel)))

    def located(self, experiment: Experiment) -> Experiment:
        """An experiment with the paths of its networks in place of their names.

        Raises:
            InputError: If one of them is not trained: a cell's ``needs`` must list it.
        """
        return replace(experiment, fields={role: self._located(str(name)) for role, name in experiment.fields.items()})

    def fields(self, experiment: Experiment, device: str = "cpu") -> dict[str, Field]:
        """The fields of an experiment by role."""
        found = self.located(experiment)
        return {role: found.build_field(role, device) for role in found.roles()}

    def run(self, experiment: Experiment) -> Result:
        """Run an experiment on the plan's device."""
        return self.located(experiment).run(self.plan.device)

    def _located(self, reference: str) -> str:
        """A field's reference with paths in place of the networks' names."""
        return _NAME.sub(lambda name: self._checked(name[0]), reference)

    def _checked(self, name: str) -> str:
        path = self._path(name)
        if not path.is_file():
            raise InputError(f"network {str(path)!r}: is not trained: expected it among the needs of the cell")
        return str(path)

    def _path(self, name: str) -> Path:
        return self.networks / Path(name).name
