"""Points of a space as bits and a few numbers: who takes part where, times one weight an expert."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from merging.catalog import Scalar
from merging.errors import InvalidStudy
from search.evolution.genome import from_unit, to_unit
from search.space import Dimension, Space, middle
from search.strategies.cma.cube import SAME, Cube, Vector

Bits = NDArray[np.bool_]


@dataclass(frozen=True)
class Mask:
    """Bits and numbers.

    Attributes:
        bits: [bits] who takes part where.
        values: [handles] the weight of each expert and the value of each parameter, as shares of their ranges.
    """

    bits: Bits
    values: Vector


class Masked:
    """The bits and the handles of a space. A handle is what all places share: an expert's weight, or a parameter.

    Attributes:
        bits, handles: how many there are.

    Raises:
        InvalidStudy: the space has a choice, no weights, or weights that may not be 0.
    """

    def __init__(self, space: Space, strategy: str) -> None:
        self._dimensions = Cube(space, strategy).dimensions
        self._at: NDArray[np.intp] = np.array([i for i, d in enumerate(self._dimensions) if d.role == "weight"], int)
        if not len(self._at):
            names = ", ".join(m.name for m in space.methods)
            remedy = "name a method that has a weight for each expert, such as task_arithmetic"
            raise InvalidStudy("space.methods", names, f"has no weights, and {strategy} leaves experts out", remedy)
        for dimension in self._dimensions:
            _require_zero(dimension, strategy)
        keys = [(d.role, d.expert or d.parameter) for d in self._dimensions]
        unique = sorted(set(keys))
        self._handle_of = np.array([unique.index(key) for key in keys])  # [dimensions]
        self._weights = np.array([role == "weight" for role, _ in unique])  # [handles]
        self.bits, self.handles = len(self._at), len(unique)
        labels = [self._dimensions[i].name.partition("@")[2] for i in self._at]
        places = sorted(set(labels))
        self._place_of = np.array([places.index(label) for label in labels])  # [bits]
        self._experts = len({self._dimensions[i].expert for i in self._at})

    @property
    def plain(self) -> Mask:
        """Everybody takes part, with one over their number as weight."""
        shares = [to_unit(d, 1.0 / self._experts if d.role == "weight" else middle(d)) for d in self._dimensions]
        values = np.zeros(self.handles)
        values[self._handle_of] = np.clip(shares, 0.0, 1.0)
        return Mask(np.ones(self.bits, dtype=np.bool_), values)

    def params(self, mask: Mask) -> dict[str, Scalar]:
        """The parameters of a point: who does not take part has the weight 0."""
        found = {
            d.name: from_unit(d, float(mask.values[handle]))
            for d, handle in zip(self._dimensions, self._handle_of, strict=True)
        }
        for index in self._at[~mask.bits]:
            found[self._dimensions[index].name] = 0.0
        return found

    def mask(self, params: Mapping[str, Scalar]) -> tuple[Mask, bool]:
        """The mask that is nearest to a point, and whether it is that point."""
        shares = np.array([to_unit(d, params[d.name]) for d in self._dimensions])
        taking = np.ones(len(shares), dtype=np.bool_)
        taking[self._at] = [float(params[self._dimensions[i].name]) != 0.0 for i in self._at]
        counts = np.bincount(self._handle_of[taking], minlength=self.handles)
        sums = np.bincount(self._handle_of[taking], shares[taking], minlength=self.handles)
        values = sums / np.maximum(counts, 1)
        absent, known = self._weights & (counts == 0), self._weights & (counts > 0)
        values[absent] = values[known].mean() if known.any() else self.plain.values[absent]
        exact = bool((np.abs(shares - values[self._handle_of])[taking] < SAME).all())
        return Mask(taking[self._at], values), exact

    def peopled(self, bits: Bits, liking: Vector) -> Bits:
        """The bits, but that somebody takes part in every place: where nobody does, whoever is liked most [bits]."""
        found = bits.copy()
        for place in range(self._place_of.max() + 1):
            members = np.flatnonzero(self._place_of == place)
            if not found[members].any():
                found[members[np.argmax(liking[members])]] = True
        return found


def _require_zero(dimension: Dimension, strategy: str) -> None:
    if dimension.role == "weight" and not dimension.low <= 0.0 <= dimension.high:
        key, range_ = f"space.bounds.{dimension.method}.weight", f"[{dimension.low:g}, {dimension.high:g}]"
        problem = f"does not hold 0, the weight of who takes no part, and {strategy} leaves experts out"
        raise InvalidStudy(key, range_, problem, "let the range hold 0")
