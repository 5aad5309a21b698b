"""The league: every rule beside every other, on the same networks, the same noise and the same budget of settings.

Two rounds. The first runs each rule with equally many settings (:mod:`toyguide.league.settings`) on seeds that count
for nothing else, and chooses (:mod:`toyguide.league.aims`). The second runs what was chosen, and a ladder of weights,
on fresh seeds; only these are reported (:mod:`toyguide.league.standings`). Each seed has networks and noise of its own.
"""

from toyguide.league.aims import AIMS, COVERAGE
from toyguide.league.arenas import ARENAS, Arena, Entrant, entrants
from toyguide.league.report import read_league, write_league
from toyguide.league.run import League, run_league
from toyguide.league.standings import at_coverage, beside, differences, front, good_share, standings

__all__ = [
    "AIMS",
    "ARENAS",
    "COVERAGE",
    "Arena",
    "Entrant",
    "League",
    "at_coverage",
    "beside",
    "differences",
    "entrants",
    "front",
    "good_share",
    "read_league",
    "run_league",
    "standings",
    "write_league",
]
