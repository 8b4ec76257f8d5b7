"""Recipes that a study is given when it is created, over its own experts: by its user, or by earlier studies."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from merging.catalog import method
from merging.errors import InvalidRecipe
from merging.recipe import GroupMerge, Merge, Override, Recipe, Slice, Value
from search.space import Space
from search.starts.inside import located, nearest
from search.starts.start import Start

RECIPE, EARLIER, NEAR = "recipe:", "earlier:", "near:"
_LONGEST = 200 - len(NEAR)  # the database's, less what `near` puts before
_Merge = TypeVar("_Merge", bound=Merge)


class Given(BaseModel):
    """What a recipe says of layers and tensors; models, seed, dtype and vocabulary are the study's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    groups: tuple[GroupMerge, ...] = Field(min_length=1)
    slices: tuple[Slice, ...] = ()
    overrides: tuple[Override, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As plain JSON, the way a study's setup keeps it."""
        return self.model_dump(mode="json", exclude_defaults=True)


def over(recipe: Recipe, names: Mapping[str, str], experts: Sequence[str]) -> Given:
    """The recipe over a study's experts; those of them that it does not name get the weight 0.

    Args:
        names: what the study calls each expert of the recipe that it has.
        experts: the study's.

    Raises:
        InvalidRecipe: another expert takes part in the recipe, or an expert of the study would have to.
    """
    groups = tuple(_renamed(g, f"groups[{i}]", recipe, names, experts) for i, g in enumerate(recipe.groups))
    overrides = tuple(_renamed(o, f"overrides[{i}]", recipe, names, experts) for i, o in enumerate(recipe.overrides))
    for index, part in enumerate(recipe.slices):
        for name in part.sources:
            if name not in names:
                raise _stranger(f"slices[{index}].sources.{name}", name, experts)
    slices = tuple(
        part.model_copy(update={"sources": {names[name]: span for name, span in part.sources.items()}})
        for part in recipe.slices
    )
    return Given(groups=groups, slices=slices, overrides=overrides)


def as_recipe(space: Space, given: Given) -> Recipe:
    """The recipe over the study's models. Raises InvalidRecipe where it makes none."""
    return space.recipe(given.groups, given.slices, given.overrides)


def as_start(space: Space, origin: str, given: Given) -> Start:
    """The recipe as a start, with its point where the space reaches it."""
    if given.slices or given.overrides:
        return Start(origin, as_recipe(space, given), None)
    return located(space, origin, given.groups)


def near(space: Space, origin: str, given: Given) -> Start | None:
    """The point of the space that is nearest to a recipe outside of it: at each depth what the recipe has there, within
    the bounds. None where the recipe lies inside, or is of other methods or layers.
    """
    if given.slices or given.overrides or as_start(space, origin, given).params is not None:
        return None
    return nearest(space, f"{NEAR}{origin}", given.groups)


def named(kind: str, name: str, number: object = None) -> str:
    """The origin of such a start, as short as the database needs it.

    Args:
        kind: `RECIPE` or `EARLIER`.
        name: of the file or the study; its end is what is left out.
        number: stands behind the name.
    """
    end = "" if number is None else f":{number}"
    return f"{kind}{name[: _LONGEST - len(kind) - len(end)]}{end}"


def _renamed(merge: _Merge, key: str, recipe: Recipe, names: Mapping[str, str], experts: Sequence[str]) -> _Merge:
    row = method(merge.method)
    strangers = [name for name in recipe.experts if name not in names]
    if row.weighting in ("none", "order"):  # every expert takes part
        if strangers:
            raise _stranger(f"{key}.method", strangers[0], experts)
        if missing := sorted(set(experts) - set(names.values())):
            problem = f"merges all experts, and the recipe does not name {', '.join(missing)}"
            raise InvalidRecipe(f"{key}.method", merge.method, problem, "leave the recipe out, or name all in it")
    heavy = next((name for name in strangers if merge.weights.get(name)), None)
    if heavy is not None:
        raise _stranger(f"{key}.weights.{heavy}", heavy, experts)
    weights = {names[name]: weight for name, weight in merge.weights.items() if name in names}
    if merge.weights:
        weights = {name: weights.get(name, 0.0) for name in experts}
    parameters = {name: _value(value, names) for name, value in merge.parameters.items()}
    return merge.model_copy(update={"weights": weights, "parameters": parameters})


def _value(value: Value, names: Mapping[str, str]) -> Value:
    if not isinstance(value, dict):
        return value
    return {names[name]: each for name, each in value.items() if name in names}


def _stranger(key: str, name: str, experts: Sequence[str]) -> InvalidRecipe:
    problem = f"is no expert of this study ({', '.join(experts)})"
    return InvalidRecipe(key, name, problem, "add it to models.experts, or leave the recipe out")
