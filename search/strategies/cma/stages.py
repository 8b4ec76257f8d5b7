"""From coarse to fine: which coordinates of the cube move together, for how long, and how far at first.

The coarsest stage moves all layers of a coefficient together, the next four segments of the layers, the last every
coordinate. Coarse stages find in few trials what all layers have in common; measured on a toy this is worth more than
any other change to CMA-ES, in particular below a hundred trials.
"""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from merging.profile import Profile
from search.importance import most_important
from search.space import Dimension

SEGMENTS = 4
SHARES = (0.2, 0.3, 0.5)  # of the trials after the starts
STEPS = (0.15, 0.12, 0.1)  # standard deviation at first, as a share of each range
LONGEST = 10  # generations of a stage before the last: by then so few coefficients have settled


@dataclass(frozen=True)
class Stage:
    """One part of the search.

    Attributes:
        name: `coarse`, `segments` or `fine`.
        member: [dimensions] the coefficient that each coordinate moves with, from 0.
        trials: how many it takes; None: all the rest.
        step: the standard deviation it begins with, as a share of each range.
    """

    name: str
    member: tuple[int, ...]
    trials: int | None
    step: float

    @property
    def coefficients(self) -> int:
        """How many there are."""
        return max(self.member) + 1


def plan_stages(
    dimensions: Sequence[Dimension],
    trials: int,
    *,
    coarse: bool = True,
    layers: int = 0,
    profile: Profile | None = None,
) -> tuple[Stage, ...]:
    """The stages of a search over so many trials, each finer than the one before; the last has no end.

    Args:
        trials: those that are left after the starts.
        coarse: whether there are coarse stages at all.
        layers: so many places along the layers move alone at last, the rest by segment; 0: all.
        profile: says which those are; None: all.
    """
    finest = _members([_finest(d, alone) for alone in [_alone(dimensions, layers, profile)] for d in dimensions])
    kinds = [("coarse", [_coarse(d) for d in dimensions]), ("segments", [_segment(d) for d in dimensions])]
    partitions = [(name, _members(keys)) for name, keys in kinds] + [("fine", finest)]
    counts = [max(member) for _, member in partitions]
    stages: list[Stage] = []
    for index, (name, member) in enumerate(partitions[:-1]):
        if not coarse or counts[index] == counts[index + 1]:  # the next is no finer
            continue
        most = LONGEST * population(max(member) + 1)
        stages.append(Stage(name, member, min(max(round(SHARES[index] * trials), 1), most), STEPS[index]))
    return (*stages, Stage("fine", finest, None, STEPS[-1] if stages else STEPS[0]))


def population(coefficients: int) -> int:
    """Draws a generation (Hansen's default)."""
    return 4 + math.floor(3 * math.log(coefficients))


def _alone(dimensions: Sequence[Dimension], layers: int, profile: Profile | None) -> frozenset[float] | None:
    """The places along the layers that have coefficients of their own; None: all."""
    depths = sorted({d.depth for d in dimensions if d.depth is not None})
    if not layers or profile is None or layers >= len(depths):
        return None
    return most_important(profile, depths, layers)


def _coarse(dimension: Dimension) -> Hashable:
    return dimension.method, dimension.role, dimension.parameter, dimension.expert, dimension.modules


def _segment(dimension: Dimension) -> Hashable:
    depth = dimension.depth
    return _coarse(dimension), None if depth is None else min(int(depth * SEGMENTS), SEGMENTS - 1)


def _finest(dimension: Dimension, alone: frozenset[float] | None) -> Hashable:
    if alone is None or dimension.depth is None or dimension.depth in alone:
        return dimension.name
    return _segment(dimension)


def _members(keys: Sequence[Hashable]) -> tuple[int, ...]:
    """The number of each key, in the order in which they are met."""
    numbers: dict[Hashable, int] = {}
    return tuple(numbers.setdefault(key, len(numbers)) for key in keys)
