"""Datasets with exact fields, the trained networks beside them, and how both are written as references."""

from toyguide.datasets.dataset import Dataset, Sampling, View, dataset_names, dataset_root, load_dataset

__all__ = ["Dataset", "Sampling", "View", "dataset_names", "dataset_root", "load_dataset"]
