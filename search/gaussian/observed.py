"""What a search has observed, as the model takes it: which trials, and how much of each was seen."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from evaluation.result import TaskScore
from search.gaussian.encoding import Place
from search.gaussian.kernel import Floats
from search.hypervolume import front
from search.strategies.contract import Observation

MOST = 300
"""Trials that the model is given: its cost grows with their third power."""
BEST, RECENT = 100, 60
STOPPED = 3.0  # of a stopped trial of which nothing else is known: a quarter of the documents
MOST_FEWER = 30.0


@dataclass(frozen=True)
class Known:
    """A trial with a value, at a point of the space.

    Attributes:
        values: one an objective, larger is better.
        constraints: 0 or less is met.
    """

    number: int
    place: Place
    values: tuple[float, ...]
    constraints: tuple[float, ...]
    pruned: bool
    scores: Callable[[], tuple[TaskScore, ...]] | None = field(repr=False)

    @property
    def meets(self) -> bool:
        """Whether it meets the constraints."""
        return all(beyond <= 0.0 for beyond in self.constraints)

    @property
    def counts(self) -> bool:
        """Whether it was scored in full and meets the constraints."""
        return self.meets and not self.pruned

    @cached_property
    def documents(self) -> int | None:
        """How many documents it was scored on; None: nobody knows. Reads its scores once."""
        return None if self.scores is None else sum(len(score.documents) for score in self.scores())


def known_of(observation: Observation, place: Place, objectives: int) -> Known | None:
    """The observation as the model takes it; None without a number for each objective."""
    values = observation.values if objectives > 1 else (observation.value,)
    if observation.value is None or values is None or len(values) != objectives or None in values:
        return None
    numbers = tuple(float(value) for value in values if value is not None)
    rest = (observation.constraints, observation.pruned, observation.scores)
    return Known(observation.number, place, numbers, *rest)


def fewer(known: Sequence[Known]) -> Floats:
    """[n] all documents by those that each trial was scored on, less 1: to this its sampling variance is proportional.

    The variance of a mean of n out of N documents, about the mean of all N, is that of a document by (1/n - 1/N).
    """
    whole = None
    if any(k.pruned for k in known):  # else no scores need be read
        whole = next((k.documents for k in known if not k.pruned and k.scores is not None), None)
    return np.array([_fewer(k, whole) for k in known])


def _fewer(known: Known, whole: int | None) -> float:
    if not known.pruned:
        return 0.0
    if whole is None or known.documents is None:
        return STOPPED
    return min(max(whole / max(known.documents, 1) - 1.0, 0.0), MOST_FEWER)


def merit(known: Sequence[Known]) -> Floats:
    """[n] how good each is, for ordering alone: the value; of several objectives their mean, the front first.

    Whoever breaks a constraint comes after all that do not.
    """
    values = np.array([k.values for k in known])
    low, high = values.min(axis=0), values.max(axis=0)
    marks = ((values - low) / np.where(high > low, high - low, 1.0)).mean(axis=1)
    if values.shape[1] > 1:
        marks[front(values)] += 1.0
    broken = np.array([sum(max(c, 0.0) for c in k.constraints) for k in known])
    return np.asarray(np.where(broken > 0.0, -broken, marks))


def chosen(known: Sequence[Known], lengths: Floats) -> list[Known]:
    """At most `MOST` of them, in their order: the best, the most recent, and of the rest the nearest to the best.

    Args:
        lengths: [columns] by which distances are measured.
    """
    if len(known) <= MOST:
        return list(known)
    order = np.argsort(-merit(known), kind="stable")
    taken = set(order[:BEST].tolist()) | set(range(len(known) - RECENT, len(known)))
    points = np.stack([k.place.vector for k in known]) / lengths
    near = np.argsort(((points - points[order[0]]) ** 2).sum(axis=1), kind="stable").tolist()
    taken.update([index for index in near if index not in taken][: MOST - len(taken)])
    return [known[index] for index in sorted(taken)]
