"""What rules are said to sample: :class:`Target` describes it, and the rest makes it concrete for exact fields."""

from toyguide.targets.ideal import ideal_field
from toyguide.targets.target import Target
from toyguide.targets.weighted import Weighted, samples_of, weighted_samples

__all__ = ["Target", "Weighted", "ideal_field", "samples_of", "weighted_samples"]
