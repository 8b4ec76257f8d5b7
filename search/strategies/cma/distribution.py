"""One stage's distribution: CMA-ES over offsets around a point of the cube.

Hansen, "The CMA Evolution Strategy: A Tutorial" (arXiv:1604.00772) and, above 64 coefficients, its separable form
(Ros and Hansen, 2008), through the `cmaes` package. A coefficient moves all its coordinates by the same share of
their ranges, so that whatever finer structure the point has is kept. What leaves the cube is put on its surface: many
good merges have weights of exactly 0, which drawing again would never give.
"""

from collections.abc import Sequence

import numpy as np
from cmaes import CMA, SepCMA

from search.strategies.cma.cube import Vector
from search.strategies.cma.stages import Stage, population

SEPARABLE = 64  # coefficients above which a full covariance cannot be learned in the trials that users have


class Distribution:
    """CMA-ES over the offsets of one stage.

    Args:
        centre: [dimensions] the point it begins at, within the cube.
        tolerance: [dimensions] by how much a coordinate may be off and still stand for the same value.
        step: the standard deviation at first.

    Attributes:
        population: draws a generation.
    """

    def __init__(self, stage: Stage, centre: Vector, tolerance: Vector, step: float) -> None:
        self._member, self._centre, self._tolerance = np.array(stage.member), centre.copy(), tolerance
        self._width = stage.coefficients
        self.population = population(stage.coefficients)
        width = max(self._width, 2)  # cmaes wants two coefficients at least; a second, idle one costs nothing
        kind = SepCMA if width > SEPARABLE else CMA
        self._optimiser: CMA | SepCMA = kind(mean=np.zeros(width), sigma=step, seed=0, population_size=self.population)

    def draw(self, seed: int) -> Vector:
        """[dimensions] a point of the cube; the same seed draws the same."""
        self._optimiser.reseed_rng(seed)
        return self._at(self._optimiser.ask())

    def offsets(self, point: Vector) -> Vector | None:
        """[coefficients, at least 2] what makes the point; None where no offsets do."""
        moved, inside = point - self._centre, (point > 0.0) & (point < 1.0)
        found = np.zeros(max(self._width, 2))
        free = np.bincount(self._member, inside, self._width)
        mean = np.bincount(self._member, moved * inside, self._width) / np.maximum(free, 1)
        farthest = np.zeros(self._width)  # where all are on the surface, as far as the last to come there
        order = np.argsort(np.abs(moved), kind="stable")
        farthest[self._member[order]] = moved[order]
        found[: self._width] = np.where(free > 0, mean, farthest)
        return found if bool(np.all(np.abs(self._at(found) - point) <= self._tolerance)) else None

    def learn(self, generation: Sequence[tuple[Vector, float]]) -> bool:
        """Take in one generation of offsets and their costs; whether the distribution has collapsed."""
        self._optimiser.tell([(offsets, cost) for offsets, cost in generation])
        return bool(self._optimiser.should_stop())

    def move(self, point: Vector) -> None:
        """Go on around another point of the cube; shape and step stay."""
        self._centre = point - self._optimiser.mean[self._member]

    def _at(self, offsets: Vector) -> Vector:
        """[dimensions] the centre moved by the offsets, within the cube."""
        point: Vector = np.clip(self._centre + offsets[self._member], 0.0, 1.0)
        return point
