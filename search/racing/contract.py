"""What every racing policy looks like to the controller.

A trial is scored on one rung of the documents after the other; after each rung but the last the policy says
whether it goes on. A policy keeps nothing: what it decides depends on what it is given, so a decision that was not
written down can be made again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from evaluation.result import TaskScore
from evaluation.statistics import Measure
from merging.catalog import Scalar
from merging.errors import InvalidInput
from search.estimates.contract import Floats


@dataclass(frozen=True)
class Contender:
    """A trial scored on one rung.

    Attributes:
        value: the objective over the rung's documents, higher is better.
        params: its point in the search space; None: it lies outside.
    """

    number: int
    rung: int
    value: float
    scores: tuple[TaskScore, ...]
    params: Mapping[str, Scalar] | None = None


@dataclass(frozen=True)
class Incumbent:
    """The best complete trial so far.

    Attributes:
        value, scores: over all search documents.
    """

    number: int
    value: float
    scores: tuple[TaskScore, ...]


@dataclass(frozen=True)
class Past:
    """The complete trials as one rung's documents show them; equal trials give equal arrays.

    Attributes:
        numbers: ascending.
        values: the objective over all search documents, [trials].
        on_rung: the objective over the rung's documents, [trials].
        items: what each got on the rung's documents, one number a document, [trials, documents].
        params: each trial's point in the search space; None where it lies outside.
        documents: of each task, those that the columns of `items` are, one task after the other.
    """

    numbers: tuple[int, ...]
    values: Floats
    on_rung: Floats
    items: Floats
    params: tuple[Mapping[str, Scalar] | None, ...]
    documents: Mapping[str, tuple[int, ...]]

    def row(self, scores: Sequence[TaskScore]) -> Floats:
        """What another trial got on the same documents: [documents]. Raises as `row_of`."""
        return row_of(scores, self.documents)


def row_of(scores: Sequence[TaskScore], documents: Mapping[str, Sequence[int]]) -> Floats:
    """One number a document, in that order: its item, or of an item that is a sum and its length their ratio.

    Raises:
        InvalidInput: one of them was not scored.
    """
    found: list[float] = []
    known = {score.task: dict(zip(score.documents, score.items, strict=True)) for score in scores}
    for task, wanted in documents.items():
        for i in wanted:
            if i not in known.get(task, {}):
                raise InvalidInput(f"scores.{task}", i, "is a document that was not scored", "score it first")
            item = known[task][i]
            found.append(item[0] / item[1] if isinstance(item, list | tuple) else float(item))
    return np.array(found, np.float32)


def joined(own: Past, others: Past) -> Past:
    """Both on the same documents; the numbers are those of the first, which come first.

    Of the others those that got the same as one of the first are left out: they are the same recipe, and a regression
    that has a candidate twice is never wrong about it.
    """
    known = set(_marks(own))
    new = [at for at, mark in enumerate(_marks(others)) if mark not in known]
    return Past(
        own.numbers,
        np.concatenate([own.values, others.values[new]]),
        np.concatenate([own.on_rung, others.on_rung[new]]),
        np.concatenate([own.items, others.items[new]]),
        (*own.params, *(others.params[at] for at in new)),
        own.documents,
    )


def _marks(past: Past) -> list[tuple[float, bytes]]:
    """What each got, to compare by; values were added up in different ways, and differ in their last digits."""
    return [(round(value, 9), row.tobytes()) for value, row in zip(past.values.tolist(), past.items, strict=True)]


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

    def past(self, rung: int) -> Past:
        """The complete trials on the documents of a rung below the last."""
        ...

    def predecessors(self, rung: int) -> Past | None:
        """The same of candidates of earlier studies, without numbers and parameters; None: there are none."""
        ...


@dataclass(frozen=True)
class Promote:
    """The trial goes on to that rung."""

    rung: int


@dataclass(frozen=True)
class Stop:
    """The trial is stopped.

    Attributes:
        estimate: what it may be worth on all search documents; None: the policy has no better guess than
            `Standings.estimate`.
    """

    why: str
    estimate: float | None = None


class Racer(Protocol):
    """A racing policy of a study with a given number of rungs."""

    def entry(self, number: int) -> int:
        """The rung at which that trial begins, if it is no baseline."""
        ...

    def decide(self, contender: Contender, field: Field) -> Promote | Stop:
        """What becomes of a trial that was scored on a rung below the last."""
        ...
