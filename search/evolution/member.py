"""A trial as archives know it, and what every archive can do."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np

from search.evolution.skill import Skill
from search.evolution.table import Floats

G = TypeVar("G")  # what a child is made from; archives do not look into it


@dataclass(frozen=True)
class Member(Generic[G]):
    """A trial that ended with a value.

    Attributes:
        value: the objective, higher is better; an estimate if it was `stopped` early.
        violation: how far it is beyond the constraints; 0: it meets them.
    """

    number: int
    genome: G
    value: float
    skill: Skill
    violation: float = 0.0
    stopped: bool = False

    @property
    def rank(self) -> tuple[float, float, int]:
        """Larger is better: who meets the constraints first, then by value; of equals the earlier."""
        return -self.violation, self.value, -self.number


class Archive(Protocol[G]):
    """Who may be a parent. What it holds depends on what was added, in that order, and on nothing else."""

    @property
    def members(self) -> Sequence[Member[G]]:
        """Those it keeps, in the order they came."""
        ...

    def add(self, member: Member[G]) -> None:
        """Take a trial in, and drop whom it displaces; that may be the trial itself."""
        ...

    def parents(self, rng: np.random.Generator, number: int) -> tuple[Member[G], Member[G]] | None:
        """Two parents for trial `number`, the same one twice if there is no other; None of an empty archive."""
        ...


def best_of(members: Iterable[Member[G]]) -> Member[G]:
    """Who stays whatever happens: of those scored in full, if there are any, the one of the highest rank."""
    return max(members, key=lambda m: (-m.violation, not m.stopped, m.rank))


def chances(goods: Floats) -> Floats:
    """Probabilities in proportion to what is good, none below 0; uniform where nothing is."""
    total = goods.sum()
    return goods / total if total > 0 else np.full(len(goods), 1.0 / len(goods))
