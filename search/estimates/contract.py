"""What every few-document estimator looks like.

`fit` takes what is known of earlier candidates and the documents that new ones are scored on; what it returns
estimates the full score of any number of new candidates, with a standard error. Nothing is kept between calls, and
the same arrays give the same numbers.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
Positions = NDArray[np.intp]


@dataclass(frozen=True)
class Target:
    """How the objective is made of items: a weighted mean in each task, and one number of all tasks.

    Attributes:
        tasks: of each document, the number of its task, [documents].
        shares: of each document, its part of its task's value; those of a task add up to 1, [documents].
        combine: the objective of tasks' values, [..., tasks] -> [...]; larger is better.
    """

    tasks: Positions
    shares: Floats
    combine: Callable[[Floats], Floats]

    @staticmethod
    def mean(tasks: NDArray[Any], weights: Floats | None = None) -> "Target":
        """The weighted mean of the tasks' plain means.

        Args:
            weights: of the tasks; None: all alike.
        """
        counts = np.bincount(tasks)
        parts = np.full(len(counts), 1.0) if weights is None else np.asarray(weights, float)
        return Target(tasks, 1.0 / counts[tasks], lambda values: values @ (parts / parts.sum()))

    @property
    def count(self) -> int:
        """How many tasks there are."""
        return int(self.tasks.max()) + 1

    def task_values(self, items: Floats, seen: Positions | None = None) -> Floats:
        """Each task's value on these documents; NaN for a task without any: [candidates, tasks].

        Args:
            items: [candidates, documents seen]; NaN counts for nothing.
            seen: which documents; None: all.
        """
        where = slice(None) if seen is None else seen
        shares, belongs = self.shares[where], self.tasks[where][:, None] == np.arange(self.count)
        weights = shares[:, None] * belongs  # [documents, tasks]
        with np.errstate(invalid="ignore"):
            return np.asarray((np.nan_to_num(items) @ weights) / (np.isfinite(items) @ weights))

    def value(self, items: Floats) -> Floats:
        """The objective on all documents: [candidates]."""
        return self.combine(self.task_values(items))

    def slopes(self, values: Floats) -> Floats:
        """How the objective changes with each task's value, by differences: [tasks] -> [tasks]."""
        step = 1e-4
        moved = values + step * np.concatenate([np.eye(len(values)), -np.eye(len(values))])
        up, down = np.split(np.asarray(self.combine(moved)), 2)
        return np.asarray((up - down) / (2 * step))


@dataclass(frozen=True)
class History:
    """Candidates that were scored before.

    Attributes:
        items: [candidates, documents], one number a document; NaN where it is not known.
        values: their objective on all documents, [candidates].
        target: how the objective is made of items.
        coefficients: what the candidates are made of, [candidates, d]; None: not known.
        logs: log-probability of the right answers, [candidates, documents]; None: not known.
    """

    items: Floats
    values: Floats
    target: Target
    coefficients: Floats | None = None
    logs: Floats | None = None


@dataclass(frozen=True)
class New:
    """Candidates to be estimated, scored on the documents that the estimator was fitted for.

    Attributes:
        items: [candidates, documents seen].
        coefficients, logs: as the history's, [candidates, d] and [candidates, documents seen].
    """

    items: Floats
    coefficients: Floats | None = None
    logs: Floats | None = None


@dataclass(frozen=True)
class Estimate:
    """The full scores of candidates: `mean` and standard `error`, [candidates]."""

    mean: Floats
    error: Floats


class Fitted(Protocol):
    """An estimator that knows a history and the documents."""

    def estimate(self, new: New) -> Estimate:
        """What new candidates are worth on all documents."""
        ...


class Estimator(Protocol):
    """A way to estimate."""

    def fit(self, history: History, seen: Positions) -> Fitted:
        """Learn from a history for candidates that are scored on some documents.

        Args:
            seen: positions of those documents among the history's.
        """
        ...
