"""Simulated binary crossover: children about as near to their parents as those of one-point crossover on bits.

Deb and Agrawal, "Simulated Binary Crossover for Continuous Search Space", Complex Systems 9 (1995).
"""

import numpy as np

from merging.catalog import Scalar
from search.evolution.genome import Genome, Inherit, foreign, from_unit, is_number, to_unit
from search.space import Dimension

ETA = 15.0  # the larger, the nearer to the parents


def spread(u: float, eta: float = ETA) -> float:
    """How far apart the children are, in units of the parents' distance, from a uniform draw in [0, 1)."""
    power = 1.0 / (eta + 1.0)
    return float((2.0 * u) ** power if u <= 0.5 else (1.0 / (2.0 * (1.0 - u))) ** power)


def binary_child(first: Genome, second: Genome, rng: np.random.Generator) -> Inherit:
    """What one child has of its parents: each number crossed with even chances, each choice either parent's."""

    def inherit(dimension: Dimension) -> Scalar:
        name = dimension.name
        near, far = (first, second) if rng.random() < 0.5 else (second, first)
        crossed, u = rng.random() < 0.5, float(rng.random())  # drawn for all: the draws of the next do not shift
        owners = [parent for parent in (near, far) if name in parent.params]
        if not owners:
            return foreign(dimension, (near, far))
        if len(owners) == 1 or not crossed or not is_number(dimension):
            return owners[0].params[name]
        beta = spread(u)
        one, other = to_unit(dimension, near.params[name]), to_unit(dimension, far.params[name])
        return from_unit(dimension, 0.5 * ((1.0 + beta) * one + (1.0 - beta) * other))

    return inherit
