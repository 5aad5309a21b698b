"""How fast the explorer answers: a real server in a process of its own, and visitors who move a slider."""

from toyguide_apps.bench.measure import ExplorerFigures, measure_explorer

__all__ = ["ExplorerFigures", "measure_explorer"]
