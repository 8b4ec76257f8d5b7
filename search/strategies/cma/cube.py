"""A space of numbers as the unit cube."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from merging.catalog import Scalar
from merging.errors import InvalidStudy
from search.evolution.genome import from_unit, is_number, to_unit
from search.space import Dimension, Space, dimensions, middle

Vector = NDArray[np.float64]

WHOLE = 0.5  # a whole number is told apart from the next by no more than half a step
SAME = 1e-6  # shares of a range that differ by less are the same


class Cube:
    """The unit cube of a space without choices; one coordinate a dimension, logarithmic where the dimension is.

    Args:
        strategy: named where the space does not fit.

    Attributes:
        dimensions: in the order of the coordinates.
        tolerance: [dimensions] by how much a coordinate may be off and still stand for the same value.

    Raises:
        InvalidStudy: the space has a choice, or nothing to vary.
    """

    def __init__(self, space: Space, strategy: str) -> None:
        self.dimensions: tuple[Dimension, ...] = dimensions(space)
        choices = [d.name for d in self.dimensions if not is_number(d)]
        if choices:
            raise InvalidStudy(
                "search.strategy", strategy, f"cannot vary choices ({choices[0]})", "name one method, or use tpe"
            )
        if not self.dimensions:
            names = ", ".join(m.name for m in space.methods)
            raise InvalidStudy("space.methods", names, "leaves nothing to vary", "add a method with parameters")
        # of a logarithmic whole number the lowest step is the widest
        steps = (to_unit(d, d.low + WHOLE) if d.kind == "int" else 0.0 for d in self.dimensions)
        self.tolerance: Vector = np.array([step + SAME for step in steps])

    @property
    def middle(self) -> Vector:
        """The point where every dimension has the middle of its range."""
        return self.point({d.name: middle(d) for d in self.dimensions})

    def point(self, params: Mapping[str, Scalar]) -> Vector:
        """Parameters -> [dimensions]."""
        return np.array([to_unit(d, params[d.name]) for d in self.dimensions])

    def params(self, point: Vector) -> dict[str, Scalar]:
        """[dimensions] -> parameters, each within its bounds."""
        return {d.name: from_unit(d, float(share)) for d, share in zip(self.dimensions, point, strict=True)}
