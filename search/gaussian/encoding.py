"""Points of a search space as vectors of one length, whatever methods they use.

A number takes one column, its range on [-½, ½]; a number that the point's methods do not use is 0 there, and which
methods it uses shows in the columns of their choices: one column a choice, 0 or √½, so that two choices are 1 apart.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from merging.catalog import Scalar
from merging.errors import InvalidRecipe
from search.gaussian.kernel import Floats
from search.space import Dimension, Space, dimensions, middle
from search.strategies.contract import Proposal

CHOSEN = math.sqrt(0.5)


@dataclass(frozen=True)
class Place:
    """A point of the space, its choices apart from its numbers.

    Attributes:
        vector: [columns].
        active: [columns] which columns are numbers that it uses.
        choices: the value of each choice that it makes.
    """

    vector: Floats
    active: NDArray[np.bool_]
    choices: Mapping[str, Scalar] = field(default_factory=dict)


class Encoding:
    """The columns of one space.

    Attributes:
        columns: the dimension of each, and which of its choices; None: it is a number.
        size: how many dimensions a point of the space has at most.
    """

    def __init__(self, space: Space) -> None:
        self._space = space
        met = [dimensions(space, lambda d, name=row.name: _under(d, name)) for row in space.methods]  # type: ignore[misc]
        self.size = max(len(found) for found in met)
        unique = {d.name: d for found in met for d in found}
        self.columns: tuple[tuple[Dimension, Scalar | None], ...] = tuple(
            (d, choice) for d in unique.values() for choice in (options(d) or (None,))
        )
        self._at = {(d.name, choice): column for column, (d, choice) in enumerate(self.columns)}

    def place(self, params: Mapping[str, Scalar]) -> Place:
        """Where a point of the space lies."""
        vector, active = np.zeros(len(self.columns)), np.zeros(len(self.columns), dtype=np.bool_)
        choices = {}
        for name, value in params.items():
            if (column := self._at.get((name, None))) is not None:
                vector[column], active[column] = _share(self.columns[column][0], float(value)) - 0.5, True
            else:
                vector[self._at[name, value]], choices[name] = CHOSEN, value
        return Place(vector, active, choices)

    def values(self, place: Place) -> dict[str, Scalar]:
        """The parameters of a place."""
        numbers = {
            self.columns[column][0].name: value_at(self.columns[column][0], float(place.vector[column]) + 0.5)
            for column in np.flatnonzero(place.active)
        }
        return {**numbers, **place.choices}

    def proposal(self, place: Place) -> Proposal:
        """The place as a recipe; none where its values make none."""
        params = self.values(place)
        try:
            return Proposal(params, self._space.decode(params))
        except InvalidRecipe as error:
            return Proposal(params, None, str(error))


def options(dimension: Dimension) -> tuple[Scalar, ...]:
    """The choices of a dimension; none of a number."""
    if dimension.kind == "bool":
        return (False, True)
    return dimension.choices if dimension.kind == "choice" else ()


def _under(dimension: Dimension, method: str) -> Scalar:
    """A value that leads to everything a method asks for."""
    return method if dimension.role == "method" else middle(dimension)


def _share(dimension: Dimension, value: float) -> float:
    """Where in its range a number is, 0 to 1."""
    low, high = dimension.low, dimension.high
    if dimension.log:
        low, high, value = math.log(low), math.log(high), math.log(value)
    return min(max((value - low) / (high - low), 0.0), 1.0)


def value_at(dimension: Dimension, share: float) -> Scalar:
    """The value so far along its range, 0 to 1; a whole number where the dimension is one."""
    share = min(max(share, 0.0), 1.0)
    if dimension.log:
        value = math.exp(math.log(dimension.low) + share * (math.log(dimension.high) - math.log(dimension.low)))
    else:
        value = dimension.low + share * (dimension.high - dimension.low)
    return round(value) if dimension.kind == "int" else min(max(value, dimension.low), dimension.high)
