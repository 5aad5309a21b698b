"""Metrics of samples and of fields, against the exact distribution."""

from toyguide.metrics.exact import hdr_threshold
from toyguide.metrics.samples import METRICS, Metric, measure, reference

__all__ = ["METRICS", "VERSION", "Metric", "hdr_threshold", "measure", "reference"]

VERSION = 2
"""Increase this when a change to the library changes measured numbers; studies then repeat their finished runs."""
