"""Crossover by layer: a child is a mixture of its parents, with other shares before a split point than after it.

From M2N2 (arXiv:2508.16204), where checkpoints are mixed; here coefficient vectors are, so that the child of two
recipes of a linear family is again one. Modules of the layers (attention, mlp, other) are split apart from each
other, like chromosomes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import get_args

import numpy as np

from merging.catalog import Scalar
from merging.recipe import Modules
from search.evolution.genome import Genome, Inherit, foreign, from_unit, is_number, to_unit
from search.space import Dimension


@dataclass(frozen=True)
class Split:
    """How much of a child is its first parent's.

    Attributes:
        share: of what is asked for once for all layers, and of the layers before the split point; after it the second
            parent has that share.
        points: depth of the split point, 0 to 1, by modules.
    """

    share: float
    points: Mapping[str, float]

    def of(self, dimension: Dimension) -> float:
        """The first parent's share of that dimension."""
        if dimension.depth is None or dimension.depth < self.points[dimension.modules]:
            return self.share
        return 1.0 - self.share


def draw_split(rng: np.random.Generator) -> Split:
    """Uniform share, and a uniform split point for each kind of module."""
    return Split(float(rng.random()), {modules: float(rng.random()) for modules in get_args(Modules)})


def split_child(first: Genome, second: Genome, split: Split) -> Inherit:
    """What a child has of its parents.

    Numbers that both have are mixed by the split (along logarithms where the range is logarithmic). A choice, and what
    only one method has, is taken whole from the parent with the larger share there.
    """

    def inherit(dimension: Dimension) -> Scalar:
        share, name = split.of(dimension), dimension.name
        near, far = (first, second) if share >= 0.5 else (second, first)
        if name in near.params and name in far.params and is_number(dimension):
            if near.params[name] == far.params[name]:
                return near.params[name]
            mixed = share * to_unit(dimension, first.params[name])
            return from_unit(dimension, mixed + (1.0 - share) * to_unit(dimension, second.params[name]))
        for parent in (near, far):
            if name in parent.params:
                return parent.params[name]
        return foreign(dimension, (near, far))

    return inherit
