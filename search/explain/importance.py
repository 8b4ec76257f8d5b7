"""What the trials' scores depended on: a curve for each number of the search space, added up, fitted to the trials.

A number x on [-1/2, 1/2] has the features √12·x and √180·(x² - 1/12), which are of mean 0, variance 1 and uncorrelated
where x is uniform; so the squares of their coefficients are the number's part of the model's variance over the space
(functional analysis of variance, Hooker 2007, of an additive model). Ridge regression keeps the coefficients of what
the trials do not tell near 0, and its leave-one-out errors say how far the whole can be trusted.
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from merging.catalog import Scalar
from search.estimates.contract import Floats
from search.estimates.ridge import fit_ridge
from search.explain.record import Direction, Importance
from search.gaussian.encoding import CHOSEN, Encoding
from search.space import Dimension, Space

LEAST_TRIALS = 20
LEAST_EXPLAINED = 0.2  # of the variance; with less, what the model says is mostly noise
MOST_DIRECTIONS = 5
STEP = 0.1  # of a number's range
Params = Mapping[str, Scalar]


def importance_of(space: Space, points: Sequence[tuple[Params, float]], at: Params | None = None) -> Importance | None:
    """What the values at these points depend on; None: there are too few, or they cannot be told from their numbers.

    Args:
        points: parameters of each trial, and its score or what that is estimated at.
        at: where the directions begin, the winner's parameters; None: it lies outside the space.
    """
    if len(points) < LEAST_TRIALS:
        return None
    encoding = Encoding(space)
    places = [encoding.place(params) for params, _ in points]
    vectors = np.array([place.vector for place in places])
    numeric = np.array([choice is None for _, choice in encoding.columns], dtype=np.bool_)
    active = np.where(numeric, [place.active for place in places], True)
    values = np.array([value for _, value in points], np.float64)
    spread = float(np.sum((values - values.mean()) ** 2)) * (len(values) / (len(values) - 1)) ** 2  # left out alike
    if vectors.shape[1] == 0 or spread == 0.0:
        return None
    line = fit_ridge(_features(vectors, active, numeric), values)
    explained = 1.0 - float(np.sum(line.left_out**2)) / spread
    slopes, bends = np.split(line.weights, 2)
    parts = _parts(encoding, slopes, bends, active.mean(axis=0))
    if explained < LEAST_EXPLAINED or parts.sum() <= 0.0:
        return None
    shares = parts / parts.sum()
    directions = _directions(encoding, shares, slopes, bends, at)
    return Importance(trials=len(points), explained=explained, directions=directions, **_summed(encoding, shares))


def _features(vectors: Floats, active: np.ndarray, numeric: np.ndarray) -> Floats:
    """[trials, columns] -> [trials, 2 columns]: first the slopes', then the bends', which choices do not have."""
    slopes = np.where(numeric, math.sqrt(12.0) * vectors, vectors / CHOSEN)
    bends = np.where(active & numeric, math.sqrt(180.0) * (vectors**2 - 1.0 / 12.0), 0.0)
    return np.asarray(np.concatenate([slopes, bends], axis=1))


def _parts(encoding: Encoding, slopes: Floats, bends: Floats, used: Floats) -> Floats:
    """[columns] variance that each column adds; of a choice's columns each its own from their common mean."""
    found = (slopes**2 + bends**2) * used
    choices: dict[str, list[int]] = defaultdict(list)
    for column, (dimension, choice) in enumerate(encoding.columns):
        if choice is not None:
            choices[dimension.name].append(column)
    for columns in choices.values():
        found[columns] = (slopes[columns] - slopes[columns].mean()) ** 2 / len(columns)
    return np.asarray(found)


def _summed(encoding: Encoding, shares: Floats) -> dict[str, dict[str, float]]:
    """The shares by expert, by place, and by parameter; the largest first."""
    experts, places, parameters = (defaultdict[str, float](float) for _ in range(3))
    for (dimension, choice), share in zip(encoding.columns, shares.tolist(), strict=True):
        if dimension.role in ("weight", "source"):
            experts[dimension.expert if dimension.role == "weight" else str(choice)] += share
        places[dimension.name.partition("@")[2] or "everywhere"] += share
        parameters[_parameter(dimension)] += share
    found = {"experts": experts, "places": places if len(places) > 1 else {}, "parameters": parameters}
    return {key: dict(sorted(sums.items(), key=lambda one: (-one[1], one[0]))) for key, sums in found.items()}


def _parameter(dimension: Dimension) -> str:
    if dimension.role == "method":
        return "method"
    return f"{dimension.method}.{'weight' if dimension.role in ('weight', 'source') else dimension.parameter}"


def _directions(
    encoding: Encoding, shares: Floats, slopes: Floats, bends: Floats, at: Params | None
) -> tuple[Direction, ...]:
    """The numbers with the largest shares, and what a step from there is expected to change."""
    place = None if at is None else encoding.place(at)
    numbers = [column for column, (_, choice) in enumerate(encoding.columns) if choice is None and shares[column] > 0]
    found = []
    for column in sorted(numbers, key=lambda c: (-shares[c], c))[:MOST_DIRECTIONS]:
        here = float(place.vector[column]) if place is not None and place.active[column] else None

        def step(by: float, here: float | None = here, column: int = column) -> float | None:
            if here is None or abs(here + by) > 0.5 + 1e-9:
                return None
            slope, bend = math.sqrt(12.0) * slopes[column], math.sqrt(180.0) * bends[column]
            return float(slope * by + bend * ((here + by) ** 2 - here**2))

        name = encoding.columns[column][0].name
        found.append(Direction(parameter=name, share=float(shares[column]), up=step(STEP), down=step(-STEP)))
    return tuple(found)
