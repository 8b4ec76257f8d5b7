"""MAP-Elites: for each task the best recipe of every cell, cells being told apart by the scores on the other tasks.

CycleQD, Kuroki et al., "Agent Skill Acquisition for Large Language Models via CycleQD" (ICLR 2025, arXiv:2410.14735):
the task whose archive gives the parents changes with every trial. Cells lie between the lowest and the highest
score of those that are kept, so they move with them.
"""

from collections.abc import Mapping, Sequence
from typing import Generic

import numpy as np

from search.evolution.member import G, Member, best_of
from search.evolution.table import Floats, tabulate

BINS = 15  # of each other task, while an archive has no more than MOST_CELLS
MOST_CELLS = 225
LEAST, MOST = 0.5, 0.8  # chances of the worst and the best elite of an archive to be a parent, up to a factor


class Elites(Generic[G]):
    """An archive for each task. The best recipe is kept whether it is an elite or not.

    A trial that was stopped early takes no cell from one that was not, nor one beyond the constraints from one that
    meets them.

    Args:
        weights: of the tasks.
    """

    def __init__(self, weights: Mapping[str, float]) -> None:
        self._weights = weights
        self._members: list[Member[G]] = []
        self._archives: list[list[int]] = []  # of each task, the elites' places
        self._quality: Floats = np.empty((0, 0))  # [members, tasks]

    @property
    def members(self) -> Sequence[Member[G]]:
        """Those it keeps, in the order they came."""
        return tuple(self._members)

    def add(self, member: Member[G]) -> None:
        """Take a trial in, and drop whoever is no elite of any task any more."""
        members = [*self._members, member]
        quality = tabulate([m.skill for m in members], self._weights).means()
        ranks = [(-m.violation, not m.stopped) for m in members]
        found = [elites_of(quality, task, ranks) for task in range(quality.shape[1])]
        kept = sorted({i for elites in found for i in elites} | {members.index(best_of(members))})
        self._members, self._quality = [members[i] for i in kept], quality[kept]
        self._archives = [[kept.index(i) for i in elites] for elites in found]

    def parents(self, rng: np.random.Generator, number: int) -> tuple[Member[G], Member[G]] | None:
        """Two elites of the trial's task, the better the likelier."""
        if not self._members:
            return None
        task = number % len(self._archives)
        archive = self._archives[task]
        quality = self._quality[archive, task]
        span = float(np.ptp(quality)) or 1.0
        odds = LEAST + (MOST - LEAST) * (quality - quality.min()) / span
        able = [not self._members[i].violation for i in archive]
        odds = np.where(able, odds, 0.0) if any(able) else odds
        pair = rng.choice(archive, size=2, p=odds / odds.sum(), replace=int((odds > 0).sum()) < 2)
        return self._members[int(pair[0])], self._members[int(pair[1])]


def elites_of(quality: Floats, task: int, ranks: Sequence[tuple[float, bool]]) -> list[int]:
    """The best of each cell of a task's archive, by place.

    Args:
        quality: score of each recipe on each task, [recipes, tasks].
        ranks: what counts before the score; larger is better.
    """
    others = [t for t in range(quality.shape[1]) if t != task]
    others = others[: MOST_CELLS.bit_length() - 1]  # two bins a task at least
    bins = min(BINS, int(MOST_CELLS ** (1.0 / len(others)) + 1e-9)) if others else 1
    niches = quality[:, others]
    low = niches.min(axis=0)
    span = np.where(np.ptp(niches, axis=0) > 0, np.ptp(niches, axis=0), 1.0)
    cells = np.minimum((niches - low) / span * bins, bins - 1).astype(int)
    best: dict[tuple[int, ...], int] = {}
    for i, cell in enumerate(map(tuple, cells)):
        held = best.setdefault(cell, i)
        if (*ranks[i], quality[i, task]) > (*ranks[held], quality[held, task]):
            best[cell] = i
    return sorted(best.values())
