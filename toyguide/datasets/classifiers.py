"""Classifiers: the probability of each class given a noisy point, and its gradient.

The exact classifier of a dataset follows from its fields by Bayes' rule. With the prior ``w_c`` and the field ``p_c``
of each class, and a temperature T that makes it over- or underconfident,

    p_T(c | x; sigma)  is proportional to  (w_c p_c(x; sigma))^(1/T)
    grad log p_T(c | x; sigma) = (s_c - sum_k p_T(k | x; sigma) s_k) / T

At T = 1 that is the posterior, and its gradient is what CFG adds: ``s_c - s``, s the union's score.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor

from toyguide.datasets.dataset import Dataset
from toyguide.errors import unknown
from toyguide.fields.base import Field, Sigma

__all__ = ["Classifier", "ExactClassifier"]


class Classifier(ABC):
    """The probabilities of classes at noisy points.

    Attributes:
        labels: The classes, in the order of the last axis of what the methods return.
    """

    labels: tuple[str, ...]

    @abstractmethod
    def log_posterior(self, x: Tensor, sigma: Sigma) -> Tensor:
        """``log p(c | x; sigma)`` of each class, with shape ``(..., labels)``."""

    @abstractmethod
    def gradient(self, x: Tensor, sigma: Sigma, label: str) -> Tensor:
        """``grad_x log p(label | x; sigma)``, with shape ``(..., d)``."""

    def logits(self, x: Tensor, sigma: Sigma) -> Tensor:
        """The logits f, whose softmax is the posterior, with shape ``(..., labels)``.

        The posterior fixes them up to a number at each point. A classifier without such a number, as here, has the
        log-posterior for its logits.
        """
        return self.log_posterior(x, sigma)

    def logits_vjp(self, x: Tensor, sigma: Sigma, v: Tensor) -> Tensor:
        """``grad_x v . f(x; sigma)`` for fixed weights v of the logits, with shape ``(..., d)``.

        Args:
            x: Points, with shape ``(..., d)``.
            sigma: Their noise level.
            v: The weights, with shape ``(..., labels)``.
        """
        each = [self.gradient(x, sigma, label) for label in self.labels]
        return (torch.stack(each, -1) * v[..., None, :]).sum(-1)

    @abstractmethod
    def tempered(self, temperature: float) -> Classifier:
        """The classifier with its logits divided by a temperature: above 1 it is less confident."""

    def index(self, label: str) -> int:
        """The place of a label on the last axis.

        Raises:
            InputError: If the classifier has no such class.
        """
        if label not in self.labels:
            raise unknown("class of the classifier", label, self.labels)
        return self.labels.index(label)


class ExactClassifier(Classifier):
    """The classifier that follows from the field and the prior of each class.

    Args:
        fields: The field of each class, with normalised densities.
        priors: The probability of each class.
        temperature: 1 is the exact posterior; above it the classifier is less confident than it should be.
    """

    def __init__(self, fields: Mapping[str, Field], priors: Mapping[str, float], temperature: float = 1.0) -> None:
        self.fields, self.priors, self.temperature, self.labels = fields, priors, temperature, tuple(fields)

    @classmethod
    def of(cls, data: Dataset) -> ExactClassifier:
        """The exact classifier of a dataset."""
        weights = data.components.mixture.weights
        priors = {label: float(weights[data.mask(label)].sum()) for label in data.labels}
        return cls({label: data.field(label) for label in data.labels}, priors)

    def log_posterior(self, x: Tensor, sigma: Sigma) -> Tensor:
        return torch.log_softmax(self.logits(x, sigma), -1)

    def gradient(self, x: Tensor, sigma: Sigma, label: str) -> Tensor:
        scores = torch.stack([field.score(x, sigma) for field in self.fields.values()], -1)  # (..., d, labels)
        p = torch.softmax(self.logits(x, sigma), -1)
        return (scores[..., self.index(label)] - (scores * p[..., None, :]).sum(-1)) / self.temperature

    def logits_vjp(self, x: Tensor, sigma: Sigma, v: Tensor) -> Tensor:
        scores = torch.stack([field.score(x, sigma) for field in self.fields.values()], -1)
        return (scores * v[..., None, :]).sum(-1) / self.temperature

    def tempered(self, temperature: float) -> ExactClassifier:
        return ExactClassifier(self.fields, self.priors, self.temperature * temperature)

    def logits(self, x: Tensor, sigma: Sigma) -> Tensor:
        """``log(w_c p_c) / T``, with shape ``(..., labels)``."""
        joint = [f.log_density(x, sigma) + math.log(self.priors[label]) for label, f in self.fields.items()]
        return torch.stack(joint, -1) / self.temperature
