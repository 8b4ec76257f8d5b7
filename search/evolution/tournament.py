"""Plain elitism: the best are kept, and of each two drawn the better is a parent."""

from collections.abc import Sequence
from typing import Generic

import numpy as np

from search.evolution.member import G, Member, best_of


class Tournament(Generic[G]):
    """An archive of the so many best recipes: what meets the constraints first, then by value.

    Args:
        size: most members.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._members: list[Member[G]] = []

    @property
    def members(self) -> Sequence[Member[G]]:
        """Those it keeps, in the order they came."""
        return tuple(self._members)

    def add(self, member: Member[G]) -> None:
        """Take a trial in, and drop the worst if there are too many."""
        self._members.append(member)
        if len(self._members) > self._size:
            best = best_of(self._members)
            self._members.remove(min((m for m in self._members if m is not best), key=lambda m: m.rank))

    def parents(self, rng: np.random.Generator, number: int) -> tuple[Member[G], Member[G]] | None:
        """The winner of a tournament of two, and that of another among the rest."""
        if not self._members:
            return None
        first = self._winner(rng, self._members)
        others = [m for m in self._members if m is not first] or self._members
        return first, self._winner(rng, others)

    def _winner(self, rng: np.random.Generator, among: Sequence[Member[G]]) -> Member[G]:
        drawn = rng.choice(len(among), size=2, replace=len(among) < 2)
        return max((among[int(i)] for i in drawn), key=lambda m: m.rank)
