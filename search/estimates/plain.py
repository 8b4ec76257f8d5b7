"""Estimates without a model: the stratified mean, and the same corrected by how the documents suited the past."""

from dataclasses import dataclass

import numpy as np

from search.estimates.contract import Estimate, Floats, History, New, Positions, Target


@dataclass(frozen=True)
class _FittedMean:
    """Attributes: `usual`, each task's value over the past candidates, for tasks without a document seen."""

    target: Target
    seen: Positions
    usual: Floats

    def estimate(self, new: New) -> Estimate:
        """As `Fitted.estimate`; the error is that of a stratified sample without replacement (Cochran)."""
        values = filled(self.target.task_values(new.items, self.seen), self.usual)
        spread = np.zeros_like(values)
        for task in range(self.target.count):
            own = np.flatnonzero(self.target.tasks[self.seen] == task)
            total = np.count_nonzero(self.target.tasks == task)
            if len(own) > 1:
                spread[:, task] = new.items[:, own].var(axis=1, ddof=1) / len(own) * (1 - len(own) / total)
        slopes = np.stack([self.target.slopes(row) for row in values])
        return Estimate(self.target.combine(values), np.sqrt((slopes**2 * spread).sum(axis=1)))


class StratifiedMean:
    """Each task's mean over its documents seen, combined as the objective combines tasks."""

    def fit(self, history: History, seen: Positions) -> _FittedMean:
        """As `Estimator.fit`."""
        return _FittedMean(history.target, seen, _usual(history))


@dataclass(frozen=True)
class _FittedDifference:
    inner: _FittedMean
    shift: float
    error: float

    def estimate(self, new: New) -> Estimate:
        """As `Fitted.estimate`."""
        found = self.inner.estimate(new).mean + self.shift
        return Estimate(found, np.full(len(found), self.error))


class Difference:
    """The mean, plus what past candidates have on all documents beyond what they have on those seen."""

    def fit(self, history: History, seen: Positions) -> _FittedDifference:
        """As `Estimator.fit`."""
        inner = StratifiedMean().fit(history, seen)
        past = known(history.items)[:, seen]
        beyond = history.values - history.target.combine(filled(history.target.task_values(past, seen), inner.usual))
        return _FittedDifference(inner, float(beyond.mean()), new_error(beyond - beyond.mean()))


def known(items: Floats) -> Floats:
    """Items with the past candidates' mean of the document where one is not known."""
    there = np.isfinite(items)
    means = np.where(there, items, 0.0).sum(axis=0) / np.maximum(1, there.sum(axis=0))
    return np.where(there, items, means)


def filled(values: Floats, usual: Floats) -> Floats:
    """Tasks' values, as usual where a task has none."""
    return np.where(np.isfinite(values), values, usual)


def new_error(residuals: Floats) -> float:
    """Standard error of a new candidate by the past ones' residuals around their mean, which is itself estimated."""
    count = len(residuals)
    return float(np.std(residuals, ddof=1) * np.sqrt(1 + 1 / count)) if count > 1 else float("inf")


def _usual(history: History) -> Floats:
    return np.asarray(history.target.task_values(known(history.items)).mean(axis=0))
