"""What a study begins with beside what every study does: recipes of its user, and the best of earlier studies.

Both are found once, when the study is created, and kept with it: files may change, and other studies go on.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

from api.build import load_recipe
from db.store import Store
from merging.arrangement import arrange
from merging.catalog import method
from merging.errors import InvalidInput, InvalidRecipe, InvalidStudy
from merging.layers import Layout
from merging.recipe import Recipe
from search.opening import fixed_starts, most_starts
from search.space import Space
from search.starts.earlier import best_of_earlier
from search.starts.given import RECIPE, Given, as_recipe, named, over
from search.strategies.declared import STRATEGIES
from search.study import StudySpec

_LARGEST = 4 << 20  # bytes of a recipe file: what is larger is another kind of file


def given_recipes(spec: StudySpec, space: Space, layout: Layout) -> dict[str, Given]:
    """The recipes of a located study's `search.starts.recipes`, by origin.

    Args:
        layout: of its models.

    Raises:
        InvalidStudy: a file is no recipe, or its recipe is not over this study's models.
    """
    found: dict[str, Given] = {}
    for index, path in enumerate(spec.search.starts.recipes):
        key = f"search.starts.recipes[{index}]"
        try:
            given = _given(Path(path), spec, space, layout)
        except InvalidInput as error:
            problem = f"cannot be a start: {error.key}: {error.value} {error.problem}"
            raise InvalidStudy(key, path, problem, error.remedy) from error
        stem = PurePath(path).stem
        origin = named(RECIPE, stem)
        found[named(RECIPE, stem, index) if origin in found else origin] = given
    return found


def with_starts(setup: Mapping[str, Any], spec: StudySpec, space: Space, store: Store) -> dict[str, Any]:
    """The setup of a study that is about to be created, with what it begins with for good.

    Args:
        setup: with its user's recipes among `starts`.
        store: where it will be, with the studies before it.
    """
    fixed = fixed_starts(spec, space, setup)
    begun = dict(setup.get("starts", {}))
    if spec.search.starts.earlier and STRATEGIES[spec.search.strategy].warm:
        known = {start.recipe.digest(setup["fingerprints"]) for start in fixed}
        earlier = best_of_earlier(store, space, setup, known)
        begun |= {origin: given.to_json() for origin, given in earlier.items()}
    return {**setup, "starts": begun, "most_starts": most_starts(spec, len(fixed), setup)}


def require_trials(spec: StudySpec, fixed: Sequence[object]) -> None:
    """See that there are trials enough for what is always tried.

    Args:
        fixed: the starts that are.

    Raises:
        InvalidStudy: there are fewer.
    """
    if spec.search.trials < len(fixed):
        own = ", your recipes" if spec.search.starts.recipes else ""
        raise InvalidStudy(
            "search.trials",
            spec.search.trials,
            f"is fewer than the {len(fixed)} starts (experts, uniform soup, defaults{own}) that it begins with",
            f"use {len(fixed)} or more",
        )


def _given(path: Path, spec: StudySpec, space: Space, layout: Layout) -> Given:
    if path.is_file() and path.stat().st_size > _LARGEST:
        raise InvalidRecipe("recipe file", str(path), "is too large for a recipe", "name a recipe's JSON or YAML file")
    recipe = load_recipe(path, layout)
    names = _matched(recipe, spec)
    _require_vocabulary(recipe, names, spec)
    given = over(recipe, names, tuple(space.experts))
    arranged = arrange(as_recipe(space, given), layout, tuple(space.experts))
    if arranged.parts.keys() != layout.places.keys():
        problem, remedy = "give the result other layers than the models have", "keep their number as it is"
        raise InvalidRecipe("slices", len(recipe.slices), problem, remedy)
    return given


def _matched(recipe: Recipe, spec: StudySpec) -> dict[str, str]:
    """What the study calls each expert of the recipe that it has: by folder, and where nothing lies there by name."""
    ours = {os.path.realpath(expert.path): expert.name for expert in spec.models.experts}
    names = {name: ours[real] for name, path in recipe.experts.items() if (real := os.path.realpath(path)) in ours}
    for name, path in recipe.experts.items():
        if name in ours.values() and name not in (*names, *names.values()) and not os.path.exists(path):
            names[name] = name  # a recipe that comes from elsewhere
    if any(method(merge.method).needs_base for merge in (*recipe.groups, *recipe.overrides)):
        _require_base(recipe, spec)
    return names


def _require_base(recipe: Recipe, spec: StudySpec) -> None:
    base, found = spec.models.base, recipe.base
    elsewhere = not os.path.exists(found) and PurePath(found).name == PurePath(base).name
    if os.path.realpath(found) != os.path.realpath(base) and not elsewhere:
        raise InvalidRecipe("base", found, f"is not the base of this study ({base})", "name recipes over this base")


def _require_vocabulary(recipe: Recipe, names: Mapping[str, str], spec: StudySpec) -> None:
    wanted = names.get(recipe.tokenizer, recipe.tokenizer)
    if wanted != spec.models.tokenizer:
        problem = f"is not the vocabulary of this study ({spec.models.tokenizer})"
        raise InvalidRecipe("tokenizer", recipe.tokenizer, problem, "let models.tokenizer and the recipe name the same")
