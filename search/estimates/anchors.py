"""Anchors: a few documents that stand for all, each weighted by the share of the documents that behave like it.

Vivek et al., "Anchor Points" (arXiv:2309.08638); Polo et al., "tinyBenchmarks" (arXiv:2402.14992). A document is
described by what past candidates got on it; documents are clustered within their task, and the one nearest to a
cluster's centre is its anchor.
"""

from dataclasses import dataclass

import numpy as np

from evaluation.rungs import rung_sizes
from search.estimates.contract import Estimate, Floats, History, New, Positions, Target
from search.estimates.plain import filled, known, new_error

ROUNDS = 50  # of k-means; it has settled long before


@dataclass(frozen=True)
class _FittedAnchors:
    """Attributes: `weights`, of each document seen in its task's value, [documents seen, tasks]."""

    target: Target
    weights: Floats
    usual: Floats
    shift: float
    error: float

    def value(self, items: Floats) -> Floats:
        """Without the correction: [candidates]."""
        values = np.where(self.weights.any(axis=0), items @ self.weights, np.nan)
        return self.target.combine(filled(values, self.usual))

    def estimate(self, new: New) -> Estimate:
        """As `Fitted.estimate`."""
        found = self.value(new.items) + self.shift
        return Estimate(found, np.full(len(found), self.error))


class Anchors:
    """The documents seen as anchors: every document counts with that one of its task that is most like it.

    The error is that of past candidates, by which the anchors may have been chosen: it is somewhat too small.
    """

    def fit(self, history: History, seen: Positions) -> _FittedAnchors:
        """As `Estimator.fit`; best with documents that `choose_anchors` chose."""
        target, columns = history.target, describe(history)
        weights = np.zeros((len(seen), target.count))
        for task in range(target.count):
            own, anchors = np.flatnonzero(target.tasks == task), np.flatnonzero(target.tasks[seen] == task)
            if len(anchors):
                nearest = anchors[distances(columns[own], columns[seen[anchors]]).argmin(axis=1)]
                np.add.at(weights[:, task], nearest, target.shares[own])
        items = known(history.items)
        usual = np.asarray(target.task_values(items).mean(axis=0))
        plain = _FittedAnchors(target, weights, usual, 0.0, 0.0)
        beyond = history.values - plain.value(items[:, seen])
        return _FittedAnchors(target, weights, usual, float(beyond.mean()), new_error(beyond - beyond.mean()))


def choose_anchors(history: History, count: int, seed: int) -> Positions:
    """The documents to score first, ascending: the nearest to the centre of each cluster, every task by its size.

    Args:
        count: how many; at least one a task.
        seed: of the first centres.
    """
    target, columns = history.target, describe(history)
    return choose_by(columns, target, count, seed)


def choose_by(columns: Floats, target: Target, count: int, seed: int) -> Positions:
    """As `choose_anchors`, by whatever describes the documents: [documents, p]."""
    dealt = deal(target, count)
    found: list[int] = []
    for task in range(target.count):
        own = np.flatnonzero(target.tasks == task)
        centres = k_means(columns[own], dealt[task], np.random.default_rng([seed, task]))
        taken: set[int] = set()
        for row in distances(centres, columns[own]):  # two centres may have one document nearest
            taken.add(int(next(i for i in np.argsort(row, kind="stable") if int(i) not in taken)))
        found += own[sorted(taken)].tolist()
    return np.array(sorted(found), np.intp)


def deal(target: Target, count: int) -> list[int]:
    """How many of so many documents each task gets, by its size."""
    sizes = np.bincount(target.tasks)
    counts = {f"{task:04d}": int(size) for task, size in enumerate(sizes)}
    total = int(sizes.sum())
    return [size[0] for _, size in sorted(rung_sizes(counts, tuple(sorted({min(count, total), total}))).items())]


def describe(history: History) -> Floats:
    """What past candidates got on each document, right or wrong and how surely: [documents, p]."""
    items = known(history.items).T
    if history.logs is None:
        return items
    logs = known(history.logs).T
    spread = float(np.std(logs)) or 1.0
    return np.concatenate([items, (logs - logs.mean()) / spread * float(np.std(items))], axis=1)


def k_means(points: Floats, clusters: int, rng: np.random.Generator) -> Floats:
    """Centres by Lloyd's algorithm from k-means++ beginnings: [points, p] -> [at most `clusters`, p]."""
    centres = points[[int(rng.integers(len(points)))]]
    while len(centres) < min(clusters, len(points)):
        far = distances(points, centres).min(axis=1)
        chances = far / far.sum() if far.sum() > 0 else np.full(len(points), 1 / len(points))
        centres = np.concatenate([centres, points[[int(rng.choice(len(points), p=chances))]]])
    for _ in range(ROUNDS):
        nearest = distances(points, centres).argmin(axis=1)
        sums = np.zeros_like(centres)
        np.add.at(sums, nearest, points)
        counts = np.bincount(nearest, minlength=len(centres))[:, None]
        moved = np.where(counts > 0, sums / np.maximum(1, counts), centres)
        if np.array_equal(moved, centres):
            break
        centres = moved
    return np.asarray(centres)


def distances(points: Floats, others: Floats) -> Floats:
    """Squared distances: [points, others]."""
    squares = (points**2).sum(axis=1)[:, None] + (others**2).sum(axis=1)
    return np.asarray(np.maximum(0.0, squares - 2 * points @ others.T))
