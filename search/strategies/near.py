"""Draws before there is anything to learn from: near a known point, or uniform where none is known.

Uniform draws over ranges that are as wide as users leave them are far worse than any known recipe, and a sampler that
begins with them spends its first trials on nothing.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from merging.catalog import Scalar
from merging.errors import InvalidRecipe
from search.evolution.genome import from_unit, is_number, to_unit
from search.space import Dimension, Space
from search.strategies.contract import Proposal

STEP = 0.15  # standard deviation, as a share of each range
OTHER = 0.2  # how often a choice is drawn anew


def draw_near(space: Space, known: Sequence[Mapping[str, Scalar]], rng: np.random.Generator) -> Proposal:
    """A recipe near the first of the known points; what that lacks is near the next that has it, else uniform.

    Args:
        known: parameters of points of the space.
    """
    params: dict[str, Scalar] = {}

    def pick(dimension: Dimension) -> Scalar:
        value = next((point[dimension.name] for point in known if dimension.name in point), None)
        params[dimension.name] = found = uniform(dimension, rng) if value is None else _near(dimension, value, rng)
        return found

    try:
        return Proposal(params, space.walk(pick))
    except InvalidRecipe as error:
        return Proposal(params, None, str(error))


def uniform(dimension: Dimension, rng: np.random.Generator) -> Scalar:
    """A uniform draw from a dimension, by logarithms where it is logarithmic."""
    return at_share(dimension, float(rng.random()))


def at_share(dimension: Dimension, share: float) -> Scalar:
    """What stands so far along a dimension, from 0 to below 1; choices take equal parts of it."""
    if is_number(dimension):
        return from_unit(dimension, share)
    choices = choices_of(dimension)
    return choices[min(int(share * len(choices)), len(choices) - 1)]


def choices_of(dimension: Dimension) -> tuple[Scalar, ...]:
    """What a choice or a switch may be; empty for a number."""
    return () if is_number(dimension) else dimension.choices or (False, True)


def _near(dimension: Dimension, value: Scalar, rng: np.random.Generator) -> Scalar:
    if not is_number(dimension):
        return uniform(dimension, rng) if rng.random() < OTHER else value
    return from_unit(dimension, to_unit(dimension, value) + STEP * float(rng.standard_normal()))
