"""The hypervolume of a set of points, exactly: the volume of what they dominate, above a reference point.

Larger is better in every objective. Both the volume and its complement as boxes are found by slicing (Zitzler 1999;
While et al., "A Faster Algorithm for Calculating Hypervolume", 2006): between two neighbouring values of the last
objective, what is dominated is what the points above the slice dominate in the other objectives. Meant for two to four
objectives and fronts of tens of points: work and boxes grow with the points to the power of objectives - 1.
"""

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def front(points: Floats) -> NDArray[np.intp]:
    """Indices of the points that no other dominates, ascending; of equal points the first: [n, objectives] -> [k]."""
    as_good = np.all(points[:, None, :] >= points[None, :, :], axis=2)  # [i, j]: i is nowhere worse than j
    better = as_good & ~as_good.T
    copies = np.triu(as_good & as_good.T, k=1)  # [i, j]: j repeats i
    return np.flatnonzero(~(better | copies).any(axis=0))


def hypervolume(points: Floats, reference: Floats) -> float:
    """The volume that the points [n, objectives] dominate above the reference [objectives]."""
    above = points[np.all(points > reference, axis=1)]
    if len(above) == 0:
        return 0.0
    return _volume(above[front(above)] - reference)


def undominated(points: Floats, reference: Floats) -> tuple[Floats, Floats]:
    """What lies above the reference and no point dominates, as boxes that do not overlap.

    Args:
        points: [n, objectives]; none may be given. reference: [objectives].

    Returns:
        Lower and upper corners, [boxes, objectives]; upper ones may be infinite.
    """
    above = points[np.all(points > reference, axis=1)]
    corners = np.array(_boxes(above[front(above)] if len(above) else above, reference))
    return corners[:, 0], corners[:, 1]


def _volume(points: Floats) -> float:
    """Volume between 0 and the points, all positive: [n, objectives]."""
    if points.shape[1] == 1:
        return float(points.max())
    if len(points) == 1:
        return float(points.prod())
    total, below = 0.0, 0.0
    for level in np.unique(points[:, -1]):
        active = points[points[:, -1] >= level, :-1]
        total += (level - below) * _volume(active[front(active)])
        below = level
    return total


def _boxes(points: Floats, reference: Floats) -> list[tuple[list[float], list[float]]]:
    if len(reference) == 1:
        return [([float(max(points.max(initial=-np.inf), reference[0]))], [np.inf])]
    edges = [float(reference[-1]), *np.unique(points[:, -1]).tolist(), np.inf]
    found = []
    for low, high in pairwise(edges):
        active = points[points[:, -1] >= high, :-1]
        inner = _boxes(active[front(active)] if len(active) else active, reference[:-1])
        found += [([*lower, low], [*upper, high]) for lower, upper in inner]
    return found
