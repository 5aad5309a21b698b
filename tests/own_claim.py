"""A claim in a folder of one's own, for the tests of ``TOYGUIDE_CLAIMS`` and of workers."""

import os

from toyguide.experiment import Experiment
from toyguide.studies.base import Cell, Criterion, Study
from toyguide.studies.workshop import trained
from toyguide.training import TrainSettings

TINY = TrainSettings("two-gaussians", None, width=8, layers=1, iterations=3, batch=16)


def measure(workshop, part, seed):
    network = workshop.network(TINY)
    return {"parameters": sum(p.numel() for p in network.parameters()), "process": os.getpid()}


class OwnClaim(Study):
    name = title = "own-claim"
    statement, source, setting = "It runs.", "nowhere", "Two Gaussians."
    criteria = (
        Criterion("sizes", "They differ", lambda rows: rows.per_seed("parameters", part="network"), at_least=1.0),
    )

    def cells(self, plan):
        found = []
        for seed in plan.seed_range:
            e = Experiment("two-gaussians", main=trained(TINY), n=16, steps=2, seed=seed)
            found.append(Cell({"seed": seed}, e, needs=(TINY,)))
            found.append(Cell({"part": "network", "seed": seed}, measure, needs=(TINY,)))
        return found
