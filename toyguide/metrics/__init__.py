"""Measures of samples and of fields against the exact distribution."""

from toyguide.metrics.samples import METRICS, Metric, hdr_threshold, measure, reference

__all__ = ["METRICS", "VERSION", "Metric", "hdr_threshold", "measure", "reference"]

VERSION = 1
"""Raised when a change to the library changes measured numbers, so that studies run their finished runs again."""
