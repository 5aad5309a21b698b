"""Metrics of samples and of fields, against the exact distribution."""

from toyguide.metrics.exact import are_outliers, hdr_threshold
from toyguide.metrics.paired import Difference, differences
from toyguide.metrics.samples import METRICS, Features, Metric, features_of, measure, measure_features, reference

__all__ = [
    "METRICS",
    "VERSION",
    "Difference",
    "Features",
    "Metric",
    "are_outliers",
    "differences",
    "features_of",
    "hdr_threshold",
    "measure",
    "measure_features",
    "reference",
]

VERSION = 2
"""Increase this when a change to the library changes measured numbers; studies then repeat their finished runs."""
