"""A genome: a point of the search space, with what each of its values is."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

from merging.catalog import CATALOG, Scalar
from search.space import Dimension, Space, dimensions

Inherit = Callable[[Dimension], Scalar]
"""The value that a child has before it is mutated."""

Mutate = Callable[[Dimension, Scalar], Scalar]
"""The value after mutation."""


@dataclass(frozen=True)
class Genome:
    """A point of the search space.

    Attributes:
        params: value of each dimension, by name.
        dimensions: those that the point fills, in the order of the walk.
    """

    params: Mapping[str, Scalar]
    dimensions: tuple[Dimension, ...]

    @cached_property
    def choices(self) -> int:
        """How many of its values are choices or switches."""
        return sum(not is_number(d) for d in self.dimensions)

    @cached_property
    def numbers(self) -> int:
        """How many of its values are numbers."""
        return len(self.dimensions) - self.choices

    def like(self, dimension: Dimension) -> Scalar | None:
        """The value of what means the same under another method: an expert's weight, or a parameter of that name.

        None where there is none.
        """
        return self._meanings.get(_meaning(dimension))

    @cached_property
    def _meanings(self) -> dict[tuple[object, ...], Scalar]:
        return {_meaning(d): self.params[d.name] for d in self.dimensions if d.role in ("weight", "parameter")}


def read_genome(space: Space, params: Mapping[str, Scalar]) -> Genome:
    """The genome of a point of that space."""
    return Genome(dict(params), dimensions(space, lambda d: params[d.name]))


def is_number(dimension: Dimension) -> bool:
    """Whether its values can be mixed: a number, no choice."""
    return dimension.kind in ("float", "int")


def to_unit(dimension: Dimension, value: Scalar) -> float:
    """Where a number stands in its range: 0 lowest, 1 highest; along logarithms where the range is logarithmic."""
    low, high, number = dimension.low, dimension.high, float(value)
    if dimension.log:
        low, high, number = math.log(low), math.log(high), math.log(number)
    return (number - low) / (high - low)


def from_unit(dimension: Dimension, share: float) -> Scalar:
    """The number that stands there in its range; beyond the range, its end."""
    share = min(max(share, 0.0), 1.0)
    low, high = dimension.low, dimension.high
    value = low * (high / low) ** share if dimension.log else low + share * (high - low)
    return round(value) if dimension.kind == "int" else min(max(value, low), high)


def foreign(dimension: Dimension, parents: tuple[Genome, ...]) -> Scalar:
    """A value that no parent has, because none has the method that asks for it.

    Its counterpart under a parent's method, the first parent's before the second's; else the catalog's default. Both
    within the range.
    """
    found = next((value for parent in parents if (value := parent.like(dimension)) is not None), None)
    value = _default(dimension) if found is None else found
    if not is_number(dimension):
        known = dimension.choices or (False, True)
        return value if value in known else known[0]
    number = min(max(float(value), dimension.low), dimension.high)
    return round(number) if dimension.kind == "int" else number


def _meaning(dimension: Dimension) -> tuple[object, ...]:
    what = dimension.expert if dimension.role == "weight" else dimension.parameter
    return dimension.role, dimension.kind, what, dimension.depth, dimension.modules


def _default(dimension: Dimension) -> Scalar:
    if dimension.role in ("method", "source"):
        return dimension.choices[0]
    row = CATALOG[dimension.method]
    parameter = row.weight if dimension.role == "weight" else row.parameter(dimension.parameter)
    assert parameter is not None, f"{dimension.name} is no number of {dimension.method}"
    return parameter.default
