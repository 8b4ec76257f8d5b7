"""Which reorderings of units leave a model's function as it is, and where in its tensors each unit's numbers lie.

Records only: `decoder.py` fills them in from tensor names, `apply.py` moves numbers by them. No torch here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

Kind = Literal["mlp", "heads", "queries", "channels", "residual"]


@dataclass(frozen=True)
class Site:
    """Where along one axis of one tensor the units of a permutation lie.

    From `start` on the axis holds `repeats` runs of all units after one another, each unit `width` entries wide.
    """

    tensor: str
    axis: int
    start: int
    repeats: int
    count: int
    width: int

    @property
    def end(self) -> int:
        """Where on the axis the units end."""
        return self.start + self.repeats * self.count * self.width

    def covers(self, other: "Site") -> bool:
        """Whether the other's entries lie among these."""
        same = (self.tensor, self.axis) == (other.tensor, other.axis)
        return same and self.start <= other.start and other.end <= self.end


@dataclass(frozen=True)
class Permutation:
    """A set of units whose order means nothing.

    An order p of it is a list of numbers: unit i of the result is unit p[i] of the model.

    Attributes:
        name: `residual`, `layers.3.mlp`, `layers.3.heads`, `layers.3.heads.1.queries`, `layers.3.heads.1.channels`.
        kind: what the units are: hidden units of an MLP; key-value heads with their query heads; the query heads of
            one key-value head; its value channels; coordinates of the residual stream.
        size: how many units.
        sites: everywhere the units have numbers.
        outer: the permutation whose units hold these units; empty if there is none. Orders of both are applied outer
            first: the inner one permutes what the outer one has put in its place.
        siblings: the names of the inner permutations of this kind, one for each unit of `outer`, this one included.
    """

    name: str
    kind: Kind
    size: int
    sites: tuple[Site, ...]
    outer: str = ""
    siblings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Specification:
    """The permutations of a model: any orders of them at once leave what it computes as it is.

    Attributes:
        permutations: outer ones before those they hold.
    """

    permutations: tuple[Permutation, ...]

    @cached_property
    def named(self) -> Mapping[str, Permutation]:
        """The permutations by name."""
        return {each.name: each for each in self.permutations}

    @cached_property
    def sites(self) -> Mapping[str, tuple[tuple[Permutation, Site], ...]]:
        """What lies in each tensor, by the tensor's name, in the order of `permutations`; only tensors with units."""
        found: dict[str, list[tuple[Permutation, Site]]] = {}
        for permutation in self.permutations:
            for site in permutation.sites:
                found.setdefault(site.tensor, []).append((permutation, site))
        return {tensor: tuple(rows) for tensor, rows in found.items()}

    @cached_property
    def inner(self) -> Mapping[str, tuple[Permutation, ...]]:
        """The permutations inside each that holds others, by its name."""
        found: dict[str, list[Permutation]] = {}
        for permutation in self.permutations:
            if permutation.outer:
                found.setdefault(permutation.outer, []).append(permutation)
        return {outer: tuple(held) for outer, held in found.items()}
