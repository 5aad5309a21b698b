"""Sweeps: many experiments, on this machine or many, to one table.

The experiments come from a file (:func:`read_sweep`) or a list, are run in batches on any ``concurrent.futures``
executor (:func:`sweep`), and their rows are written as they come (:class:`Ledger`).
"""

from toyguide.sweeps.batch import sweep
from toyguide.sweeps.ledger import Ledger
from toyguide.sweeps.spec import read_sweep

__all__ = ["Ledger", "read_sweep", "sweep"]
