"""Niches around reference directions (Deb and Jain, NSGA-III, 2014)."""

from functools import cache
from itertools import combinations
from math import comb

import numpy as np

from search.strategies.nsga.fronts import Numbers, Ranks, Values

TINY = 1e-12


@cache
def directions(objectives: int, most: int) -> Values:
    """[directions, objectives] evenly spread over the simplex (Das and Dennis): as many as fit into `most`, one
    for each objective at least.
    """
    parts = 1
    while objectives > 1 and comb(parts + objectives, objectives - 1) <= most:
        parts += 1
    rows = []
    for bars in combinations(range(parts + objectives - 1), objectives - 1):
        edges = (-1, *bars, parts + objectives - 1)
        rows.append([edges[i + 1] - edges[i] - 1 for i in range(objectives)])
    return np.array(rows, dtype=float) / parts


def niches(values: Values, references: Values) -> tuple[Ranks, Numbers]:
    """[candidates] the direction each is nearest to, and how far from its line it lies, once objectives are scaled so
    that the best of all is the origin and the plane through the extreme candidates cuts every axis at 1.
    """
    costs = values.max(axis=0) - values
    scaled = costs / _intercepts(costs)
    unit = references / np.linalg.norm(references, axis=1, keepdims=True)
    along = scaled @ unit.T
    apart = np.linalg.norm(scaled[:, None, :] - along[:, :, None] * unit[None, :, :], axis=2)
    nearest = apart.argmin(axis=1)
    return nearest, apart[np.arange(len(values)), nearest]


def _intercepts(costs: Values) -> Numbers:
    """[objectives] where the plane through the extreme candidates cuts the axes; where there is no such plane, the
    largest costs.
    """
    count = costs.shape[1]
    weights = np.where(np.eye(count) > 0, 1.0, 1e6)
    extremes = costs[[int(np.max(costs * weight, axis=1).argmin()) for weight in weights]]
    largest: Numbers = np.maximum(costs.max(axis=0), TINY)
    try:
        sides = np.linalg.solve(extremes, np.ones(count))
    except np.linalg.LinAlgError:
        return largest
    usable = np.all(np.isfinite(sides)) and np.all(sides * (largest + TINY) >= 1.0)  # no cut beyond the largest cost
    return np.asarray(1.0 / sides, dtype=np.float64) if bool(usable) else largest
