"""Measures of samples and of fields against the exact distribution."""

from toyguide.metrics.samples import METRICS, Metric, hdr_threshold, measure, reference

__all__ = ["METRICS", "Metric", "hdr_threshold", "measure", "reference"]
