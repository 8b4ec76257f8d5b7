"""Dominated novelty search: a recipe stays if it solves what those better than it, and most like it, do not.

Bahlous-Boldi et al. (arXiv:2502.00593) in the form of AC/DC (ICLR 2026): the distance from one recipe to another is
the share of documents, weighted by their difficulty, that only the first solves.
"""

from collections.abc import Mapping, Sequence
from typing import Generic

import numpy as np

from search.evolution.member import G, Member, best_of
from search.evolution.table import Floats, Table, tabulate

NEAREST = 3


class Novelty(Generic[G]):
    """An archive of so many recipes, of which the least novel is dropped, who is farthest beyond the constraints first.

    The best recipe is never dropped.

    Args:
        size: most members.
        weights: of the tasks.
    """

    def __init__(self, size: int, weights: Mapping[str, float]) -> None:
        self._size, self._weights = size, weights
        self._members: list[Member[G]] = []

    @property
    def members(self) -> Sequence[Member[G]]:
        """Those it keeps, in the order they came."""
        return tuple(self._members)

    def add(self, member: Member[G]) -> None:
        """Take a trial in, and drop the least novel if there are too many."""
        self._members.append(member)
        if len(self._members) <= self._size:
            return
        table = tabulate([m.skill for m in self._members], self._weights)
        novel = dominated_novelty(table, [m.rank for m in self._members])
        best = best_of(self._members)
        places = [i for i, m in enumerate(self._members) if m is not best]
        del self._members[min(places, key=lambda i: (-self._members[i].violation, novel[i], -i))]

    def parents(self, rng: np.random.Generator, number: int) -> tuple[Member[G], Member[G]] | None:
        """Any two; of those that meet the constraints, where there are two."""
        able = [m for m in self._members if not m.violation]
        known = able if len(able) > 1 else self._members
        if not known:
            return None
        first, second = rng.choice(len(known), size=2, replace=len(known) < 2)
        return known[int(first)], known[int(second)]


def dominated_novelty(table: Table, fitness: Sequence[tuple[float, float, int]]) -> Floats:
    """The mean distance of each recipe from the three nearest of the fitter ones; infinite for the fittest: [recipes].

    Args:
        fitness: larger is fitter; no two alike.
    """
    difficulty = table.weights * (1.0 - table.scores.mean(axis=0))
    total = float(difficulty.sum()) or 1.0
    novel = np.full(len(fitness), np.inf)
    for i, own in enumerate(fitness):
        fitter = [k for k, other in enumerate(fitness) if other > own]
        if fitter:
            only = np.maximum(table.scores[i] - table.scores[fitter], 0.0) @ difficulty / total
            novel[i] = np.sort(only)[:NEAREST].mean()
    return novel
