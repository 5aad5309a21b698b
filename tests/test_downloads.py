"""Downloads, read back: the samples as they were, and what is said of each by an independent computation."""

import csv
import dataclasses
import io
import json

import numpy as np
import pytest
import torch
from torch.distributions import MultivariateNormal

from toyguide import Experiment
from toyguide.downloads import experiments_json, samples_csv, samples_npz
from toyguide.errors import InputError
from toyguide.metrics import measure


@pytest.fixture(scope="module")
def results():
    settings = {"dataset": "fractal", "n": 60, "steps": 4}
    found = [Experiment(**settings, label="A").run("cpu"), Experiment(**settings, main="exact").run("cpu")]
    x = found[1].x.clone()
    x[-1, 5] = torch.nan
    return [found[0], dataclasses.replace(found[1], x=x)]


def likeliest(point, data):
    """The component's class and branch by sums over Gaussians, in float64."""
    parts = data.components
    dense = MultivariateNormal(parts.mixture.means.double(), parts.mixture.covariances.double())
    weight = (dense.log_prob(point.double()) + parts.mixture.weights.double().log()).softmax(0)
    sums = [
        [float(weight[index == i].sum()) for i in range(int(index.max()) + 1)]
        for index in (parts.component_label, parts.component_branch)
    ]
    label, branch = (int(np.argmax(s)) for s in sums)
    return data.labels[label], branch


def test_the_csv_has_every_sample_as_it_was(results):
    rows = list(csv.DictReader(io.StringIO(samples_csv(results))))
    assert list(rows[0]) == ["panel", "x0", "x1", "outlier", "label", "branch"]
    for panel, result in zip("AB", results, strict=True):
        mine = [row for row in rows if row["panel"] == panel]
        x = np.array([[row["x0"], row["x1"]] for row in mine], dtype=np.float32)
        np.testing.assert_array_equal(x, result.x[-1].numpy())
        outliers = sum(row["outlier"] == "1" for row in mine) / len(mine)
        e = result.experiment
        assert outliers == pytest.approx(measure(result.x[-1], e.data, e.label, resamples=0)["outliers"])


def test_classes_and_branches_are_the_likeliest(results):
    rows = list(csv.DictReader(io.StringIO(samples_csv(results))))
    data = results[0].experiment.data
    points = torch.cat([result.x[-1] for result in results])
    for row, point in zip(rows, points, strict=True):
        if point.isfinite().all():
            assert (row["label"], int(row["branch"])) == likeliest(point, data)
        else:
            assert (row["outlier"], row["label"], row["branch"]) == ("1", "", "-1")
    assert {row["label"] for row in rows} == {"A", "B", ""}


def test_the_npz_says_the_same_and_makes_the_runs_again(results):
    with np.load(io.BytesIO(samples_npz(results)), allow_pickle=False) as arrays:
        found = {name: arrays[name] for name in arrays.files}
    rows = list(csv.DictReader(io.StringIO(samples_csv(results))))
    np.testing.assert_array_equal(found["x"], torch.cat([result.x[-1] for result in results]).numpy())
    assert found["x"].dtype == np.float32
    for name in ("panel", "label"):
        assert found[name].tolist() == [row[name] for row in rows]
    for name in ("outlier", "branch"):
        assert found[name].astype(int).tolist() == [int(row[name]) for row in rows]
    again = [Experiment(**settings) for settings in json.loads(str(found["experiments"])).values()]
    assert again == [result.experiment for result in results]
    np.testing.assert_array_equal(again[0].run("cpu").x[-1], results[0].x[-1])


def test_wrong_runs_are_refused(results):
    other = Experiment("simplex16", n=5, steps=2).run("cpu")
    for runs, message in (([], "0 runs in 0 dimensions"), ([results[0], other], "2 runs in 2 dimensions")):
        for write in (samples_csv, samples_npz):
            with pytest.raises(InputError, match=message):
                write(runs)
    with pytest.raises(InputError, match="expected a reference"):
        experiments_json([Experiment("two-gaussians", main=results[0].experiment.data.field("A"))])
