"""Orders of candidates that no single number gives: by ranks (Borda, Kemeny), by several tasks at once (Pareto).

Tables are [tasks, systems], larger being better; a position in the second axis is a system. Pure; no torch.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from evaluation.objective import CLIP, Scale

Floats = NDArray[np.float64]
KEMENY_MOST = 8  # systems that Kemeny's order is found for


def borda(table: Floats, weights: Sequence[float]) -> Floats:
    """Each system's Borda share, from the weighted mean of its ranks over the tasks. -> [systems], in (0, 1).

    The best of n in every task has 1 - 1/2n, the last 1/2n, one alone 1/2; ties share their ranks' mean. So a share
    says more the more systems there are to be better than.
    """
    count = table.shape[1]
    return (count - _weighted(_ranks(table), weights) + 0.5) / count


def borda_documents(documents: Sequence[Floats], weights: Sequence[float]) -> Floats:
    """As `borda`, each task's ranks being those of the mean ranks on its documents (two levels, Colombo et al. 2022).

    Args:
        documents: [documents, systems] a task.
    """
    means = np.stack([_ranks(task).mean(axis=0) for task in documents])
    return borda(-means.round(9), weights)  # sums in another order are no other rank


def kemeny(table: Floats, weights: Sequence[float]) -> list[int]:
    """The order of at most 8 systems that disagrees least with the tasks' orders (Kemeny 1959), exactly; best first.

    A disagreement is a pair of systems, in the order of which a task holds the second to be better; it costs the
    task's weight. Ties of a task cost nothing. Of equally good orders the first in lexical order is taken.
    """
    count = table.shape[1]
    assert count <= KEMENY_MOST, "the number of subsets doubles with each system"
    # before[i, j]: what it costs to put i before j
    worse = (table[:, :, None] < table[:, None, :]).astype(np.float64)
    before = np.tensordot(np.asarray(weights, dtype=np.float64), worse, axes=1)
    cost, first = [0.0] * 2**count, [-1] * 2**count  # of the best order of a set of systems, as bits
    for members in range(1, 2**count):
        inside = [i for i in range(count) if members >> i & 1]
        costs = [float(before[i, inside].sum()) + cost[members & ~(1 << i)] for i in inside]
        best = int(np.argmin(np.round(costs, 9)))  # sums in another order are no other cost
        cost[members], first[members] = costs[best], inside[best]
    order, left = [], 2**count - 1
    while left:
        order.append(first[left])
        left &= ~(1 << first[left])
    return order


def pareto_layers(table: Floats) -> NDArray[np.int64]:
    """How many fronts must be taken away before each system is on the front. -> [systems]; 0: it is on it.

    On the front is whom no system equals in every task and beats in one.
    """
    count = table.shape[1]
    as_good: NDArray[np.bool_] = np.all(table[:, :, None] >= table[:, None, :], axis=0)
    beats = as_good & ~as_good.T  # [i, j]: i dominates j
    layers = np.full(count, -1, dtype=np.int64)
    layer = 0
    while (left := layers < 0).any():
        front = left & ~beats[left].any(axis=0)
        layers[front] = layer
        layer += 1
    return layers


def knee_marks(table: Floats, weights: Sequence[float], scales: Sequence[Scale] | None = None) -> Floats:
    """How near each system of a front is to being the best in all tasks: [systems], in [0, 1], or in `CLIP`.

    The weighted mean of its values, each in its task's scale and clipped (`CLIP`), so that neither a value far off nor
    luck in one task decides. Without scales a task is scaled so that the front's worst has 0 and its best 1; one in
    which the front is all alike counts 1. The highest is the knee: the one farthest from the worst corner.

    Args:
        scales: of each task, from `anchored`.
    """
    if scales is not None:
        offset, step = np.array(scales).T[:, :, None]
        return _weighted(np.clip((table - offset) / step, *CLIP), weights)
    low, high = table.min(axis=1, keepdims=True), table.max(axis=1, keepdims=True)
    span = np.where(high > low, high - low, 1.0)
    share = np.where(high > low, (table - low) / span, 1.0)
    return _weighted(share, weights)


def spearman(first: Sequence[float], second: Sequence[float]) -> float | None:
    """The rank correlation of two lists, ties sharing their rank; None where one of them is all alike or too short."""
    if len(first) < 3 or len(set(first)) < 2 or len(set(second)) < 2:
        return None
    from scipy.stats import spearmanr

    return float(spearmanr(first, second).statistic)


def _weighted(table: Floats, weights: Sequence[float]) -> Floats:
    mean: Floats = np.asarray(weights, dtype=np.float64) @ table / sum(weights)
    return mean.round(12)  # the last bits depend on a system's place in the table, and equals must stay equals


def _ranks(table: Floats) -> Floats:
    """Ranks within each row, 1 for the largest; ties share the mean of theirs."""
    from scipy.stats import rankdata  # a second to import, and the service's API has none

    ranks: Floats = rankdata(-table, axis=1)
    return ranks
