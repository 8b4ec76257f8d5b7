"""Which of several candidates are better: non-dominated fronts and crowding (Deb et al., NSGA-II, 2002).

Objectives are higher-is-better everywhere. A candidate that meets the constraints dominates any that does not; of two
that do not, the one less far beyond dominates.
"""

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]  # [candidates, objectives]
Numbers = NDArray[np.float64]  # [candidates]
Ranks = NDArray[np.int64]  # [candidates]


def fronts(values: Values, violations: Numbers) -> Ranks:
    """[candidates] the front that each is on: 0 is dominated by none, 1 only by candidates of 0, and so on."""
    not_worse = np.all(values[:, None, :] >= values[None, :, :], axis=2)
    better = np.any(values[:, None, :] > values[None, :, :], axis=2)
    nearer = violations[:, None] < violations[None, :]
    alike = violations[:, None] == violations[None, :]
    dominates = nearer | (alike & not_worse & better)
    ranks = np.full(len(values), -1)
    dominated, rank = dominates.sum(axis=0), 0
    while np.any(ranks < 0):
        front = (ranks < 0) & (dominated == 0)
        ranks[front] = rank
        dominated = dominated - dominates[front].sum(axis=0)
        rank += 1
    return ranks


def crowding(values: Values) -> Numbers:
    """[candidates] of one front, how far apart each one's neighbours are; the ends of an objective are infinitely far.

    An objective that is the same for all says nothing.
    """
    distance = np.zeros(len(values))
    for column in values.T:
        order = np.argsort(column, kind="stable")
        width = column[order[-1]] - column[order[0]]
        if width <= 0:
            continue
        distance[order[[0, -1]]] = np.inf
        distance[order[1:-1]] += (column[order[2:]] - column[order[:-2]]) / width
    return distance
