"""What a rival looks like to the benchmark: it asks for a recipe to be scored, and is told the score."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from merging.catalog import Scalar
from merging.recipe import SCHEMA, GroupMerge, Modules, Recipe

LEAST_DENSITY = 1e-6  # of our recipes; mergekit keeps one element of a tensor where a search says 0
MOST_WEIGHT = 10.0


@dataclass(frozen=True)
class Setting:
    """One search that a rival is set to.

    Attributes:
        experts: their folders by name.
        layers: of the models.
        seed: keys all that the rival draws, and the random masks of its recipes.
        evaluations: how many full evaluations may be asked for, about.
        order: the search documents of each task, in scoring order.
    """

    base: str
    experts: Mapping[str, str]
    layers: int
    seed: int
    evaluations: int
    order: Mapping[str, tuple[int, ...]]

    @property
    def documents(self) -> int:
        """All search documents."""
        return sum(map(len, self.order.values()))

    @property
    def spans(self) -> list[tuple[int, int]]:
        """One range a layer."""
        return [(layer, layer + 1) for layer in range(self.layers)]

    def recipe(self, groups: Sequence[GroupMerge]) -> Recipe:
        """A recipe of the study's models. Raises InvalidRecipe."""
        return Recipe(schema_=SCHEMA, base=self.base, experts=dict(self.experts), seed=self.seed, groups=tuple(groups))

    def group(
        self,
        span: tuple[int, int],
        method: str,
        weights: Sequence[float],
        parameters: Mapping[str, Scalar] | None = None,
        densities: Sequence[float] | None = None,
        modules: Modules = "all",
    ) -> GroupMerge:
        """A group with a weight, and perhaps a density, for each expert; both are brought into what a recipe takes."""
        capped = [min(max(float(weight), -MOST_WEIGHT), MOST_WEIGHT) for weight in weights]
        values: dict[str, Scalar | dict[str, Scalar]] = dict(parameters or {})
        if densities is not None:
            kept = [min(max(float(density), LEAST_DENSITY), 1.0) for density in densities]
            values["density"] = dict(zip(self.experts, kept, strict=True))
        named = dict(zip(self.experts, capped, strict=True))
        return GroupMerge(layers=span, modules=modules, method=method, weights=named, parameters=values)


@dataclass(frozen=True)
class Question:
    """A recipe to score.

    Attributes:
        recipe: None where the rival's numbers make none: it is told None, and nothing is scored.
        documents: how many search documents of each task, the first in scoring order; None: all.
    """

    recipe: Recipe | None
    documents: int | None = None


class Rival(Protocol):
    """A search. Scores are means over the tasks, higher is better."""

    def ask(self) -> Question | None:
        """What to score next; None: the search has ended by its own rules."""
        ...

    def tell(self, value: float | None) -> None:
        """The score of what was asked for last; None: it could not be scored."""
        ...

    def recommended(self) -> Recipe | None:
        """What its user would take if it ended now."""
        ...


class Best:
    """The recipe of the best score, of equals the first."""

    def __init__(self) -> None:
        self.recipe: Recipe | None = None
        self.value = float("-inf")

    def note(self, recipe: Recipe | None, value: float | None) -> None:
        """Take note of a score."""
        if recipe is not None and value is not None and value > self.value:
            self.recipe, self.value = recipe, value
