"""Natural niches: recipes compete for documents, and mate with those that solve what they do not.

M2N2, Abrantes et al., "Competition and Attraction Improve Model Fusion" (GECCO 2025, arXiv:2508.16204). A document
that few solve feeds those who do, so a specialist stays although its mean is low, until somebody has its skill too.
"""

from collections.abc import Mapping, Sequence
from typing import Generic

import numpy as np

from search.evolution.member import G, Member, best_of, chances
from search.evolution.table import Floats, Table, tabulate

EPS = 1e-9


class Niches(Generic[G]):
    """An archive of so many recipes, of which the one with the lowest shared fitness is dropped.

    Whoever is farthest beyond the constraints is dropped first, and is first parent only where nobody meets them. The
    best recipe is never dropped.

    Args:
        size: most members.
        weights: of the tasks.
    """

    def __init__(self, size: int, weights: Mapping[str, float]) -> None:
        self._size, self._weights = size, weights
        self._members: list[Member[G]] = []
        self._table: Table | None = None

    @property
    def members(self) -> Sequence[Member[G]]:
        """Those it keeps, in the order they came."""
        return tuple(self._members)

    def add(self, member: Member[G]) -> None:
        """Take a trial in, and drop the least fit if there are too many."""
        self._members.append(member)
        self._table = None
        if len(self._members) <= self._size:
            return
        best, fitness = best_of(self._members), shared_fitness(self._tabulated())
        places = [i for i, m in enumerate(self._members) if m is not best]
        del self._members[min(places, key=lambda i: (-self._members[i].violation, fitness[i], -i))]
        self._table = None

    def discard(self, number: int) -> None:
        """Drop that trial, if it is there."""
        self._members = [m for m in self._members if m.number != number]
        self._table = None

    def parents(self, rng: np.random.Generator, number: int) -> tuple[Member[G], Member[G]] | None:
        """One by its shared fitness, another by how much it adds to the first."""
        if not self._members:
            return None
        table = self._tabulated()
        able = [not m.violation for m in self._members]
        fitness = np.where(able, shared_fitness(table), 0.0) if any(able) else shared_fitness(table)
        if not fitness.sum() and any(able):
            fitness = np.array(able, dtype=np.float64)
        first = int(rng.choice(len(self._members), p=chances(fitness)))
        if len(self._members) == 1:
            return self._members[0], self._members[0]
        pull = attraction(table, first)
        if not pull.sum():
            pull = np.ones(len(self._members))
        pull[first] = 0.0
        return self._members[first], self._members[int(rng.choice(len(self._members), p=chances(pull)))]

    def _tabulated(self) -> Table:
        if self._table is None:
            self._table = tabulate([m.skill for m in self._members], self._weights)
        return self._table


def shared_fitness(table: Table) -> Floats:
    """F_i = sum_j u_j s_ij c_j / (z_j + eps), z_j = sum_k s_kj: [recipes].

    u_j are the documents' weights, which M2N2 does not have.
    """
    fitness: Floats = table.scores @ _scarcity(table)
    return fitness


def attraction(table: Table, first: int) -> Floats:
    """g(first, i) = sum_j u_j c_j / (z_j + eps) max(s_ij - s_first,j, 0): [recipes]; 0 for the first itself."""
    pull: Floats = np.maximum(table.scores - table.scores[first], 0.0) @ _scarcity(table)
    return pull


def _scarcity(table: Table) -> Floats:
    scarce: Floats = table.weights * table.worth / (table.scores.sum(axis=0) + EPS)
    return scarce
