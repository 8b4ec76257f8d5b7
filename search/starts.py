"""Known good recipes that every study begins with, and that stay in its report as baselines.

Each expert alone, the uniform soup (which is task arithmetic with weights 1/n), the base where scores are compared
with it, and each method of the space at its defaults with equal weights. A search can therefore never return less than
its best expert on the search documents. A start lies in the search space where the space can express it, so that
samplers learn from it; else it is a recipe only.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from evaluation.constraints import BASE
from merging.catalog import Method, Scalar
from merging.recipe import Recipe
from search.space import Dimension, Space

UNIFORM = "uniform_soup"


@dataclass(frozen=True)
class Start:
    """One recipe to begin with.

    Attributes:
        params: its point in the search space; None where the space does not reach it.
    """

    origin: str
    recipe: Recipe
    params: dict[str, Scalar] | None


class _OutsideSpace(Exception):
    """A wanted value lies outside its dimension."""


def starts(space: Space, needed: Sequence[str] = ()) -> tuple[Start, ...]:
    """The starts of a study, without repetitions, baselines first.

    Args:
        needed: origins that the study's objective or constraints compare with; the base is scored only if it is one.
    """
    names = tuple(space.experts)
    found = [_whole(_alone(space, name)) for name in names]
    if len(names) > 1:
        found.append(_whole(_average(space)))
    if BASE in needed:
        found.append(_whole(_nothing(space)))
    for row in space.methods:
        start = default_start(space, row)
        if start is not None:
            found.append(start)
    unique: dict[str, Start] = {}
    for start in found:
        unique.setdefault(start.recipe.to_json(), start)
    return tuple(unique.values())


def expert_origin(name: str) -> str:
    """The origin of the trial that is one expert alone."""
    return f"expert:{name}"


def is_baseline(origin: str) -> bool:
    """Whether a start is a fixed point of comparison: an expert, the uniform soup, the base. All are scored in full."""
    return origin in (UNIFORM, BASE) or origin.startswith(expert_origin(""))


def _whole(start: Start) -> Start:
    """A baseline is what a user has without a search: not of experts that lost something, which the space is of."""
    if start.recipe.compress is None or start.recipe.compress.lossless:
        return start
    return Start(start.origin, start.recipe.model_copy(update={"compress": None}), None)


def _alone(space: Space, name: str) -> Start:
    one_hot = {expert: float(expert == name) for expert in space.experts}
    for row in space.methods:
        if row.weighting == "one_hot" or row.name in ("linear", "task_arithmetic"):
            start = _inside(space, expert_origin(name), row, one_hot)
            if start is not None:
                return start
    return Start(expert_origin(name), space.uniform("linear", one_hot, {}), None)


def _average(space: Space) -> Start:
    share = 1.0 / len(space.experts)
    equal = dict.fromkeys(space.experts, share)
    for row in space.methods:
        if row.name in ("linear", "task_arithmetic"):
            start = _inside(space, UNIFORM, row, equal)
            if start is not None:
                return start
    return Start(UNIFORM, space.uniform("linear", equal, {}), None)


def _nothing(space: Space) -> Start:
    nothing = dict.fromkeys(space.experts, 0.0)
    for row in space.methods:
        if row.name == "task_arithmetic":
            start = _inside(space, BASE, row, nothing)
            if start is not None:
                return start
    return Start(BASE, space.uniform("task_arithmetic", nothing, {}), None)


def default_start(space: Space, row: Method) -> Start | None:
    """The method at its defaults, all experts alike; None where that is no single recipe (one-hot methods)."""
    if row.weighting == "one_hot":
        return None
    share = 1.0 / len(space.experts)
    if row.weight is not None:  # as near to it as the space goes
        low, high = space.bounds.get(f"{row.name}.weight", (row.weight.low, row.weight.high))
        share = min(max(share, low), high)
    values = {p.name: space.fixed.get(f"{row.name}.{p.name}", p.default) for p in row.parameters}
    return _inside(space, f"default:{row.name}", row, dict.fromkeys(space.experts, share), values)


def _inside(
    space: Space, origin: str, row: Method, weights: Mapping[str, float], values: Mapping[str, Scalar] | None = None
) -> Start | None:
    """The start as a point of the space; None where the space does not reach it."""
    wanted = values if values is not None else {p.name: p.neutral for p in row.parameters}
    params: dict[str, Scalar] = {}

    def pick(dimension: Dimension) -> Scalar:
        if dimension.role == "method":
            value: Scalar = row.name
        elif dimension.role == "source":
            value = next(name for name, weight in weights.items() if weight)
        elif dimension.role == "weight":
            value = weights[dimension.expert]
        else:
            value = wanted[dimension.parameter]
        if dimension.kind in ("float", "int") and not dimension.low <= float(value) <= dimension.high:
            raise _OutsideSpace
        if dimension.kind == "choice" and value not in dimension.choices:
            raise _OutsideSpace
        params[dimension.name] = value
        return value

    if row.name not in {m.name for m in space.methods}:
        return None
    try:
        recipe = space.walk(pick)
    except _OutsideSpace:
        return None
    # a value the space holds fixed was not asked for: see whether it is the wanted one
    reached = all(
        group.parameters[name] == value and (row.weighting in ("none", "order") or group.weights == dict(weights))
        for group in recipe.groups
        for name, value in wanted.items()
    )
    return Start(origin, recipe, params) if reached else None
