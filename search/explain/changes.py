"""The winner's recipe with one thing changed: an expert left out, all layers alike, rounded numbers."""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from merging.catalog import CATALOG, Parameter, Scalar
from merging.errors import InvalidRecipe
from merging.recipe import GroupMerge, Merge, Recipe, Value, parse_recipe
from search.explain.record import ChangeKind

MOST_EXPERTS = 8
"""Left out one by one: those with the largest weights."""
DIGITS = 2


@dataclass(frozen=True)
class Change:
    """A recipe that differs from the winner's in one thing. `expert`: who is left out."""

    kind: ChangeKind
    recipe: Recipe
    digest: str
    expert: str | None = None


def changes(recipe: Recipe, fingerprints: Mapping[str, str]) -> tuple[Change, ...]:
    """The changes that make another recipe of this one.

    Left out are those that cannot be made: an expert whom a method takes whatever its weight is, or who is all that a
    group has; layers of different methods.
    """
    own = recipe.digest(fingerprints)
    found = []
    for kind, expert, make in _makers(recipe):
        try:
            made = make()
        except InvalidRecipe:
            continue
        digest = own if made is None else made.digest(fingerprints)
        if made is not None and digest != own:
            found.append(Change(kind, made, digest, expert))
    return tuple(found)


def weighty(recipe: Recipe) -> tuple[str, ...]:
    """The experts who might be left out, if there are several: those with the largest weights, the largest first."""
    sizes = {name: _size(recipe, name) for name in recipe.experts}
    largest = sorted((name for name in sizes if sizes[name] > 0), key=lambda name: (-sizes[name], name))
    return tuple(largest[:MOST_EXPERTS]) if len(sizes) > 1 else ()


def unused(recipe: Recipe) -> tuple[str, ...]:
    """Experts whose weights are 0 everywhere; none where a method has no weights."""
    merges = (*recipe.groups, *recipe.overrides)
    return tuple(name for name in recipe.experts if all(m.weights.get(name) == 0.0 for m in merges))


def _makers(recipe: Recipe) -> Iterator[tuple[ChangeKind, str | None, Callable[[], Recipe | None]]]:
    for name in weighty(recipe):
        yield "without", name, lambda name=name: _without(recipe, name)  # type: ignore[misc]
    yield "flat", None, lambda: _flat(recipe)
    yield "rounded", None, lambda: _each(recipe, _rounded)


def _size(recipe: Recipe, expert: str) -> float:
    """The expert's absolute weights, added up over the layers of all groups."""
    return sum(abs(g.weights.get(expert, 0.0)) * (g.layers[1] - g.layers[0]) for g in recipe.groups)


def _without(recipe: Recipe, expert: str) -> Recipe | None:
    """The expert's weights 0 everywhere; what is left is scaled where its method takes weights as relative."""
    merges = (*recipe.groups, *recipe.overrides)
    if any(CATALOG[m.method].weighting != "per_expert" and m.weights.get(expert) != 0.0 for m in merges):
        return None
    return _each(recipe, lambda merge: {"weights": merge.weights | {expert: 0.0} if merge.weights else {}})


def _each(recipe: Recipe, change: Callable[[Merge], dict[str, object]]) -> Recipe:
    """The recipe with every group and override changed. Raises InvalidRecipe where that makes none."""
    groups = tuple(group.model_copy(update=change(group)) for group in recipe.groups)
    overrides = tuple(override.model_copy(update=change(override)) for override in recipe.overrides)
    return _checked(recipe.model_copy(update={"groups": groups, "overrides": overrides}))


def _checked(recipe: Recipe) -> Recipe:
    return parse_recipe(recipe.model_dump(mode="json", by_alias=True))


def _flat(recipe: Recipe) -> Recipe | None:
    """Every group has the mean numbers of its module kind's groups, in proportion to their layers."""
    kinds = {group.modules for group in recipe.groups}
    alike = {kind: [g for g in recipe.groups if g.modules == kind] for kind in kinds}
    if any(len({g.method for g in groups}) > 1 for groups in alike.values()):
        return None
    if any(CATALOG[group.method].weighting == "one_hot" for group in recipe.groups):
        return None
    means = {kind: _mean(groups, tuple(recipe.experts)) for kind, groups in alike.items()}
    flat = tuple(group.model_copy(update=means[group.modules]) for group in recipe.groups)
    return _checked(recipe.model_copy(update={"groups": flat}))


def _mean(groups: Sequence[GroupMerge], experts: Sequence[str]) -> dict[str, object]:
    row, sizes = CATALOG[groups[0].method], [g.layers[1] - g.layers[0] for g in groups]
    weights = {name: _average([g.weights[name] for g in groups], sizes) for name in groups[0].weights}
    parameters: dict[str, Value] = {}
    for parameter in row.parameters:
        given = [g.parameters.get(parameter.name, parameter.default) for g in groups]
        if any(isinstance(value, dict) for value in given):
            each = {name: [_of(value, name, parameter) for value in given] for name in experts}
            parameters[parameter.name] = {name: _middle(parameter, values, sizes) for name, values in each.items()}
        else:
            parameters[parameter.name] = _middle(parameter, [_of(value, "", parameter) for value in given], sizes)
    return {"weights": weights, "parameters": parameters}


def _of(value: Value, expert: str, parameter: Parameter) -> Scalar:
    return value.get(expert, parameter.default) if isinstance(value, dict) else value


def _middle(parameter: Parameter, values: Sequence[Scalar], sizes: Sequence[int]) -> Scalar:
    """The mean of numbers, of the logarithms where these are searched; the most frequent choice."""
    if parameter.kind in ("bool", "choice"):
        counts: Counter[Scalar] = Counter()
        for value, size in zip(values, sizes, strict=True):
            counts[value] += size
        return counts.most_common(1)[0][0]
    numbers = [float(value) for value in values]
    if parameter.log and min(numbers) > 0:
        mean = math.exp(_average([math.log(number) for number in numbers], sizes))
    else:
        mean = _average(numbers, sizes)
    mean = min(max(mean, min(numbers)), max(numbers))  # rounding must not leave the range
    return round(mean) if parameter.kind == "int" else mean


def _average(numbers: Sequence[float], sizes: Sequence[int]) -> float:
    if min(numbers) == max(numbers):  # to the last bit
        return numbers[0]
    return math.fsum(n * size for n, size in zip(numbers, sizes, strict=True)) / sum(sizes)


def _rounded(merge: Merge) -> dict[str, object]:
    def near(value: Value) -> Value:
        if isinstance(value, dict):
            return {name: neat(one) if isinstance(one, float) else one for name, one in value.items()}
        return neat(value) if isinstance(value, float) else value

    weights = {name: neat(weight) for name, weight in merge.weights.items()}
    return {"weights": weights, "parameters": {name: near(value) for name, value in merge.parameters.items()}}


def neat(number: float) -> float:
    """Two digits after the point; of numbers below a tenth the first two that are not 0."""
    if number == 0 or not math.isfinite(number):
        return number
    return round(number, max(DIGITS, DIGITS - 1 - math.floor(math.log10(abs(number)))))
