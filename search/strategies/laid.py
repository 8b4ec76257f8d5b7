"""Strategies whose trials are laid out before anything is observed: `qmc` and `grid`, honest baselines beside `random`.

Optuna has samplers for both. They count what they have handed out in a storage that does not outlive the process, and
want to know the whole space beforehand, which with several methods differs from trial to trial; here the place in the
sequence is the number of trials that were proposed before.
"""

from collections.abc import Mapping
from dataclasses import replace
from math import gcd, prod
from typing import Protocol

from scipy.stats.qmc import Sobol

from merging.catalog import Scalar
from merging.errors import InvalidRecipe, InvalidStudy
from search.evolution.genome import from_unit
from search.seeds import derive
from search.space import Dimension, Space, dimensions, middle
from search.strategies.contract import Exhausted, Observation, Proposal, Wait
from search.strategies.near import at_share, choices_of
from search.strategies.opening import Opening


class Layout(Protocol):
    """A sequence of points."""

    def at(self, index: int) -> Mapping[str, Scalar] | None:
        """The values of at least the dimensions that the point needs; None behind the last point."""
        ...


class Laid:
    """A strategy that walks along a layout.

    Args:
        starts: trials below this number are none of its own.
    """

    def __init__(self, space: Space, layout: Layout, starts: int) -> None:
        self._space, self._layout, self._starts = space, layout, starts
        self._next = 0

    def propose(self, number: int) -> Proposal | Wait | Exhausted:
        """The next point."""
        values = self._layout.at(self._next)
        if values is None:
            return Exhausted()
        self._next += 1
        params = {d.name: values[d.name] for d in dimensions(self._space, lambda d: values[d.name])}
        try:
            return Proposal(params, self._space.decode(params))
        except InvalidRecipe as error:
            return Proposal(params, None, str(error))

    def reserve(self, number: int, proposal: Proposal) -> None:
        """Go past what was proposed before a restart."""
        self._next += number >= self._starts

    def observe(self, observation: Observation) -> None:
        """Nothing to learn."""


class SobolSequence:
    """A scrambled Sobol sequence over all dimensions that there may be (Owen, 1998; through scipy).

    A point has a value for every method's dimensions, and uses those of the method it chooses.
    """

    def __init__(self, space: Space, seed: int) -> None:
        self._dimensions = every_dimension(space)
        self._seed, self._drawn = seed, 0
        self._sequence: Sobol | None = None

    def at(self, index: int) -> Mapping[str, Scalar]:
        """The point at that place."""
        if not self._dimensions:
            return {}
        if self._sequence is None or index < self._drawn:
            self._sequence, self._drawn = Sobol(len(self._dimensions), rng=derive(self._seed, "qmc")), 0
        if index > self._drawn:
            self._sequence.fast_forward(index - self._drawn)
        shares = self._sequence.random(1)[0]
        self._drawn = index + 1
        return {d.name: at_share(d, float(share)) for d, share in zip(self._dimensions, shares, strict=True)}


class Grid:
    """All combinations of evenly spaced values, method by method, in an order that leaps about.

    Args:
        points: values of each number, both bounds among them; 0: as many as let the grid end within `trials`, but two
            at least.

    Raises:
        InvalidStudy: each group chooses a method of its own, so that no grid is even.
    """

    def __init__(self, space: Space, seed: int, trials: int, points: int = 0) -> None:
        if space.per_group and len(space.methods) > 1:
            problem = "makes spaces that have no even grid"
            raise InvalidStudy("space.choose", "per_group", problem, "use per_study, or search.strategy: random")
        self._axes: list[tuple[str, list[tuple[str, tuple[Scalar, ...]]]]] = []
        for row in space.methods:
            found = dimensions(replace(space, methods=(row,)))
            count = points or _affordable(found, trials // len(space.methods))
            self._axes.append((row.name, [(d.name, _levels(d, count)) for d in found]))
        self._sizes = [prod(len(levels) for _, levels in axes) for _, axes in self._axes]
        self.size = sum(self._sizes)
        self._first = derive(seed, "grid") % self.size
        self._stride = _coprime(self.size)

    def at(self, index: int) -> Mapping[str, Scalar] | None:
        """The point at that place; each comes once."""
        if index >= self.size:
            return None
        cell = (self._first + index * self._stride) % self.size
        which = 0
        while cell >= self._sizes[which]:
            cell, which = cell - self._sizes[which], which + 1
        method, axes = self._axes[which]
        values: dict[str, Scalar] = {"method": method}
        for name, levels in axes:
            cell, place = divmod(cell, len(levels))
            values[name] = levels[place]
        return values


def qmc(opening: Opening) -> Laid:
    """A scrambled Sobol sequence."""
    return Laid(opening.space, SobolSequence(opening.space, opening.seed), len(opening.starts))


def grid(opening: Opening) -> Laid:
    """An even grid; of the options `points`."""
    starts, points = len(opening.starts), opening.options.get("points", 0)
    return Laid(opening.space, Grid(opening.space, opening.seed, max(opening.trials - starts, 0), points), starts)


def every_dimension(space: Space) -> tuple[Dimension, ...]:
    """The dimensions of every method, each once."""
    found: dict[str, Dimension] = {}
    for row in space.methods:
        met = dimensions(space, lambda d, name=row.name: name if d.role == "method" else middle(d))  # type: ignore[misc]
        found |= {d.name: d for d in met if d.name not in found}
    return tuple(found.values())


def _levels(dimension: Dimension, count: int) -> tuple[Scalar, ...]:
    """So many values, evenly spaced from bound to bound; every choice of a choice."""
    if choices := choices_of(dimension):
        return choices
    return tuple(dict.fromkeys(from_unit(dimension, step / (count - 1)) for step in range(count)))


def _affordable(found: tuple[Dimension, ...], trials: int) -> int:
    """The most values of each number with which there are no more combinations than trials; 2 at least."""
    count = 2
    while any(not choices_of(d) for d in found):
        if prod(len(_levels(d, count + 1)) for d in found) > trials or count >= trials:
            break
        count += 1
    return count


def _coprime(size: int) -> int:
    """A stride that meets all cells before any twice, near the golden section so that neighbours are far apart."""
    stride = max(size * 618 // 1000, 1)
    while gcd(stride, size) != 1:
        stride += 1
    return stride
