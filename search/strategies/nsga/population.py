"""The population of NSGA-II or NSGA-III: whoever is told joins, and the worst leaves.

Without generations nothing waits for the slowest of them, and the population is a function of what was told.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from merging.catalog import Scalar
from search.strategies.nsga.fronts import Numbers, Ranks, Values, crowding, fronts
from search.strategies.nsga.niches import directions, niches


@dataclass(frozen=True)
class Member:
    """A candidate of the population.

    Attributes:
        values: one an objective, higher is better.
        violation: how far it is beyond the constraints; 0 where it meets them.
    """

    params: Mapping[str, Scalar]
    values: tuple[float, ...]
    violation: float


class Population:
    """At most so many of the best members.

    Args:
        references: whether crowded niches around reference directions lose members first (NSGA-III), or crowded
            places of a front (NSGA-II).
    """

    def __init__(self, size: int, *, references: bool) -> None:
        self._size, self._references = size, references
        self.members: list[Member] = []

    @property
    def full(self) -> bool:
        """Whether it has as many members as it may have."""
        return len(self.members) >= self._size

    def join(self, member: Member) -> None:
        """Take in a candidate; where that is one too many, the worst leaves."""
        self.members.append(member)
        if len(self.members) > self._size:
            values, violations = self._table()
            ranks = fronts(values, violations)
            last = np.flatnonzero(ranks == ranks.max())
            del self.members[self._worst(last, values) if len(last) > 1 else int(last[0])]

    def parents(self, rng: np.random.Generator) -> tuple[Member, Member]:
        """Two members, each the better of two drawn at random."""
        values, violations = self._table()
        ranks = fronts(values, violations)
        spare = np.zeros(len(values))
        if self._references:
            ranks = np.where(violations > 0, ranks, 0)  # among those that meet the constraints NSGA-III draws evenly
        else:
            for rank in range(int(ranks.max()) + 1):
                spare[ranks == rank] = crowding(values[ranks == rank])
        first, second = (self._tournament(ranks, spare, rng) for _ in range(2))
        return self.members[first], self.members[second]

    def _tournament(self, ranks: Ranks, spare: Numbers, rng: np.random.Generator) -> int:
        pair = rng.choice(len(ranks), size=min(2, len(ranks)), replace=False)
        return int(min(pair, key=lambda i: (ranks[i], -spare[i])))

    def _worst(self, last: Ranks, values: Values) -> int:
        """Of the last front the member in the most crowded place; of equals the latest."""
        if not self._references:
            room = crowding(values[last])
            return int(last[min(reversed(range(len(last))), key=lambda i: room[i])])
        niche, apart = niches(values, directions(values.shape[1], self._size))
        counts = np.bincount(niche)
        return int(max(last[::-1], key=lambda i: (counts[niche[i]], apart[i])))

    def _table(self) -> tuple[Values, Numbers]:
        values = np.array([member.values for member in self.members], dtype=float)
        return values, np.array([member.violation for member in self.members])
