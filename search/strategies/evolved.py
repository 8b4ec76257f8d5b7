"""CMA-ES on the space's numbers, started at the best known start with a small step.

Hansen, "The CMA Evolution Strategy: A Tutorial" (arXiv:1604.00772), through the `cmaes` package. Optuna's own
sampler drops results that arrive after their generation closed and keeps pickled state in trial attributes;
here a generation closes as soon as enough results are in, whichever generation they were drawn from, and the
state is replayed from the trials. Each draw is reseeded by trial number, so a replay draws the same.
"""

import math
from collections.abc import Sequence

import numpy as np
from cmaes import CMA
from numpy.typing import NDArray

from merging.catalog import Scalar
from merging.errors import InvalidRecipe, InvalidStudy
from search.seeds import derive
from search.space import Space, dimensions, middle
from search.strategies.contract import Exhausted, Observation, Proposal, Wait

STEP = 0.15  # initial standard deviation, as a share of each range

Vector = NDArray[np.float64]


class Evolved:
    """CMA-ES over a space without choices.

    Args:
        starts: how many starts lie in the space; the search begins when all of them are observed.

    Raises:
        InvalidStudy: the space has a choice, or nothing to vary.
    """

    def __init__(self, space: Space, seed: int, starts: int) -> None:
        self._space, self._seed, self._starts = space, seed, starts
        self._dimensions = dimensions(space)
        self._require_numbers()
        self._seen: list[tuple[Vector, Observation]] = []
        self._own: list[tuple[Vector, Observation]] = []
        self._awaited = starts
        self._optimiser: CMA | None = None

    def propose(self, number: int) -> Proposal | Wait | Exhausted:
        """Draw from the current distribution."""
        if self._optimiser is None:
            if self._awaited > 0:
                return Wait()
            self._optimiser = self._begin(STEP)
        self._optimiser.reseed_rng(derive(self._seed, number))
        params = self._params(self._optimiser.ask())
        try:
            return Proposal(params, self._space.decode(params))
        except InvalidRecipe as error:
            return Proposal(params, None, str(error))

    def reserve(self, number: int, proposal: Proposal) -> None:
        """Nothing to note: the distribution does not depend on what is open."""

    def observe(self, observation: Observation) -> None:
        """Close a generation when enough of our own draws are in."""
        is_start = observation.number < self._starts
        self._awaited -= is_start
        if observation.params is None or observation.value is None:
            return
        point = self._point(observation.params)
        if not is_start and self._optimiser is None:  # a replay: no proposal was asked for yet
            self._optimiser = self._begin(STEP)
        self._seen.append((point, observation))
        if is_start or self._optimiser is None:
            return
        self._own.append((point, observation))
        if len(self._own) == self._optimiser.population_size:
            costs = _costs([observed for _, observed in self._own])
            self._optimiser.tell([(point, cost) for (point, _), cost in zip(self._own, costs, strict=True)])
            self._own = []
            if self._optimiser.should_stop():
                self._optimiser = self._begin(STEP / 2)

    def _begin(self, step: float) -> CMA:
        """A fresh distribution around the best point seen (the middle, if none was)."""
        centre = [float(middle(d)) for d in self._dimensions]
        names = {d.name: value for d, value in zip(self._dimensions, centre, strict=True)}
        best = max(self._seen, key=lambda s: _rank(s[1]))[0] if self._seen else self._point(names)
        width = len(self._dimensions)
        # cmaes wants two dimensions at least; a second, idle one costs nothing
        bounds = np.array([[0.0, 1.0]] * max(width, 2))
        mean = np.full(max(width, 2), 0.5)
        mean[:width] = np.clip(best[:width], 0.0, 1.0)
        return CMA(mean=mean, sigma=step, bounds=bounds, seed=derive(self._seed, "cma"))

    def _point(self, params: dict[str, Scalar] | dict[str, float]) -> Vector:
        """Parameters -> the unit cube."""
        point = np.full(max(len(self._dimensions), 2), 0.5)
        for index, d in enumerate(self._dimensions):
            low, high, value = d.low, d.high, float(params[d.name])
            if d.log:
                low, high, value = math.log(low), math.log(high), math.log(value)
            point[index] = (value - low) / (high - low)
        return point

    def _params(self, point: Vector) -> dict[str, Scalar]:
        """The unit cube -> parameters."""
        params: dict[str, Scalar] = {}
        for d, share in zip(self._dimensions, point, strict=False):
            share = min(max(float(share), 0.0), 1.0)
            value = math.exp(math.log(d.low) + share * (math.log(d.high) - math.log(d.low))) if d.log else None
            value = d.low + share * (d.high - d.low) if value is None else min(max(value, d.low), d.high)
            params[d.name] = round(value) if d.kind == "int" else value
        return params

    def _require_numbers(self) -> None:
        choices = [d.name for d in self._dimensions if d.kind not in ("float", "int")]
        if choices:
            raise InvalidStudy(
                "search.strategy", "cmaes", f"cannot vary choices ({choices[0]})", "name one method, or use tpe"
            )
        if not self._dimensions:
            names = ", ".join(m.name for m in self._space.methods)
            raise InvalidStudy("space.methods", names, "leaves nothing to vary", "add a method with parameters")


def _rank(observation: Observation) -> tuple[float, float]:
    """Larger is better: one that meets the constraints before any that does not."""
    return -observation.violation, observation.value or 0.0


def _costs(generation: Sequence[Observation]) -> list[float]:
    """Lower is better; whoever is beyond the constraints costs more than any that meets them, the farther the more."""
    plain = [-(observed.value or 0.0) for observed in generation]
    worst = max((cost for cost, o in zip(plain, generation, strict=True) if not o.violation), default=0.0)
    return [worst + o.violation if o.violation else cost for cost, o in zip(plain, generation, strict=True)]
