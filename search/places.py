"""Where along the layers a space's numbers are asked for, and what a dimension's name says of it."""

from dataclasses import dataclass
from typing import Literal, TypedDict

from merging.recipe import Modules
from merging.schedule import GroupKey


class Where(TypedDict):
    """The fields of a dimension that say where it is asked for."""

    depth: float | None
    modules: Modules


@dataclass(frozen=True)
class Places:
    """Where a group's numbers are asked for: at one place, or at two it lies between.

    Attributes:
        first, second: what a dimension's name says of the place.
        share: how far the group lies toward the second.
        depths, modules: of the two, as a dimension has them.
    """

    first: str
    second: str | None = None
    share: float = 0.0
    depths: tuple[float | None, float | None] = (None, None)
    modules: Modules = "all"

    def at(self, index: int) -> tuple[str, "Where"]:
        """What a dimension of the first or the second place says of it, and has."""
        label = self.first if index == 0 else self.second or ""
        return label, {"depth": self.depths[index], "modules": self.modules}

    @property
    def nearest(self) -> tuple[str, "Where"]:
        """The place of what cannot lie between two."""
        return self.at(0 if self.second is None or self.share <= 0.5 else 1)


@dataclass(frozen=True)
class Asked:
    """What a value is for."""

    role: Literal["weight", "parameter"]
    name: str
    expert: str = ""


def between(first: float, second: float, share: float, log: bool) -> float:
    """On the line between two numbers, or on that between their logarithms; equal ones give themselves."""
    if log and first > 0 and second > 0:
        return float(first * (second / first) ** share)
    return first + (second - first) * share


def label_of(key: GroupKey) -> str:
    """A group's name inside a dimension's: `layers0-3`, `layers0-3.mlp`."""
    first, end = key.layers
    span = f"layers{first}-{end - 1}" if end - first > 1 else f"layer{first}"
    return span if key.modules == "all" else f"{span}.{key.modules}"
