"""What every racing policy looks like to the controller.

A trial is scored on one rung of the documents after the other; after each rung but the last the policy says
whether it goes on. A policy keeps nothing: what it decides depends on what it is given, so a decision that was not
written down can be made again.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from evaluation.result import TaskScore
from evaluation.statistics import Measure


@dataclass(frozen=True)
class Contender:
    """A trial scored on one rung.

    Attributes:
        value: the objective over the rung's documents, higher is better.
    """

    number: int
    rung: int
    value: float
    scores: tuple[TaskScore, ...]


@dataclass(frozen=True)
class Incumbent:
    """The best complete trial so far.

    Attributes:
        value, scores: over all search documents.
    """

    number: int
    value: float
    scores: tuple[TaskScore, ...]


class Field(Protocol):
    """The trials that a contender races against."""

    @property
    def incumbent(self) -> Incumbent | None:
        """The best complete trial that meets the constraints; None: there is none yet."""
        ...

    @property
    def measure(self) -> Measure:
        """The study's objective on whatever documents."""
        ...

    def seen(self, rung: int) -> Mapping[int, float]:
        """The objective of every trial told or promoted that was scored on that rung's documents, by number."""
        ...


@dataclass(frozen=True)
class Promote:
    """The trial goes on to that rung."""

    rung: int


@dataclass(frozen=True)
class Stop:
    """The trial is stopped."""

    why: str


class Racer(Protocol):
    """A racing policy of a study with a given number of rungs."""

    def entry(self, number: int) -> int:
        """The rung at which that trial begins, if it is no baseline."""
        ...

    def decide(self, contender: Contender, field: Field) -> Promote | Stop:
        """What becomes of a trial that was scored on a rung below the last."""
        ...
