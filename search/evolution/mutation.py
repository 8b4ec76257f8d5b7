"""Mutation of a child's values: a small step in every number, or a rare larger one in a few."""

import numpy as np

from merging.catalog import Scalar
from search.evolution.genome import Mutate, from_unit, is_number, to_unit
from search.space import Dimension

ETA = 20.0  # of polynomial mutation: the larger, the smaller the steps


def gaussian(rng: np.random.Generator, deviation: float, change: float) -> Mutate:
    """A normal step in every number.

    Args:
        deviation: standard deviation, as a share of each range; what leaves the range is set to its end.
        change: probability that a choice is drawn anew.
    """

    def mutate(dimension: Dimension, value: Scalar) -> Scalar:
        if not is_number(dimension):
            return another(rng, dimension, value, change)
        step = deviation * float(rng.standard_normal())
        return from_unit(dimension, to_unit(dimension, value) + step) if step else value

    return mutate


def polynomial(rng: np.random.Generator, numbers: int, change: float) -> Mutate:
    """Deb's polynomial mutation (eta 20), of one number in `numbers` on average.

    Args:
        change: probability that a choice is drawn anew.
    """

    def mutate(dimension: Dimension, value: Scalar) -> Scalar:
        if not is_number(dimension):
            return another(rng, dimension, value, change)
        chosen, u = rng.random() < 1.0 / max(1, numbers), float(rng.random())
        return from_unit(dimension, to_unit(dimension, value) + deviation_of(u)) if chosen else value

    return mutate


def deviation_of(u: float, eta: float = ETA) -> float:
    """The step of polynomial mutation, as a share of the range, from a uniform draw in [0, 1): -1 to 1."""
    power = 1.0 / (eta + 1.0)
    return float((2.0 * u) ** power - 1.0 if u < 0.5 else 1.0 - (2.0 * (1.0 - u)) ** power)


def another(rng: np.random.Generator, dimension: Dimension, value: Scalar, change: float) -> Scalar:
    """With that probability another of the choices, else the same."""
    others = [choice for choice in dimension.choices or (False, True) if choice != value]
    changed = rng.random() < change
    return others[int(rng.integers(len(others)))] if changed and others else value
