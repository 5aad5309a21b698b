"""Guidance rules. :mod:`toyguide.guidance.base` says what a rule is; ``rules/`` has one file for each."""

from toyguide.datasets.roles import ROLES, Role
from toyguide.guidance.base import FAMILIES, Limit, PerTrajectory, Rule
from toyguide.guidance.evaluation import Arrival, Cost, Evaluation, Fields, Guided, Scene, Transition
from toyguide.guidance.registry import is_from_file, register, rule, rules, rules_of_file, source_of
from toyguide.guidance.schedules import Schedule
from toyguide.guidance.wrappers import Batched, Interval, Settled, Wrapper

__all__ = [
    "FAMILIES",
    "ROLES",
    "Arrival",
    "Batched",
    "Cost",
    "Evaluation",
    "Fields",
    "Guided",
    "Interval",
    "Limit",
    "PerTrajectory",
    "Role",
    "Rule",
    "Scene",
    "Schedule",
    "Settled",
    "Transition",
    "Wrapper",
    "is_from_file",
    "register",
    "rule",
    "rules",
    "rules_of_file",
    "source_of",
]
