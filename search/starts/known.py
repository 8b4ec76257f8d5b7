"""Recipes that need no search: baselines, and each method at its defaults."""

from collections.abc import Mapping

from evaluation.constraints import BASE
from merging.catalog import Method
from search.space import Space
from search.starts.inside import inside
from search.starts.start import UNIFORM, Start, expert_origin


def whole(start: Start) -> Start:
    """A baseline is what a user has without a search: not of experts that lost something, which the space is of."""
    if start.recipe.compress is None or start.recipe.compress.lossless:
        return start
    return Start(start.origin, start.recipe.model_copy(update={"compress": None}), None)


def alone(space: Space, name: str) -> Start:
    """One expert as it is."""
    one_hot = {expert: float(expert == name) for expert in space.experts}
    for row in space.methods:
        if row.weighting == "one_hot" or row.name in ("linear", "task_arithmetic"):
            start = inside(space, expert_origin(name), row, one_hot)
            if start is not None:
                return start
    return Start(expert_origin(name), space.uniform("linear", one_hot, {}), None)


def average(space: Space) -> Start:
    """The uniform soup."""
    return plain(space, UNIFORM, dict.fromkeys(space.experts, 1.0 / len(space.experts)))


def plain(space: Space, origin: str, shares: Mapping[str, float]) -> Start:
    """An average of experts.

    Args:
        shares: of those that take part; they add up to 1.
    """
    weights = dict.fromkeys(space.experts, 0.0) | dict(shares)
    for row in space.methods:
        if row.name in ("linear", "task_arithmetic"):
            start = inside(space, origin, row, weights)
            if start is not None:
                return start
    return Start(origin, space.uniform("linear", weights, {}), None)


def arithmetic(space: Space, origin: str, weights: Mapping[str, float]) -> Start:
    """Task arithmetic with these weights."""
    for row in space.methods:
        if row.name == "task_arithmetic":
            start = inside(space, origin, row, weights)
            if start is not None:
                return start
    return Start(origin, space.uniform("task_arithmetic", weights, {}), None)


def nothing(space: Space) -> Start:
    """The base as it is."""
    return arithmetic(space, BASE, dict.fromkeys(space.experts, 0.0))


def default_start(space: Space, row: Method) -> Start | None:
    """The method at its defaults, all experts alike; None where that is no single recipe (one-hot methods)."""
    if row.weighting == "one_hot":
        return None
    share = 1.0 / len(space.experts)
    if row.weight is not None:  # as near to it as the space goes
        low, high = space.bounds.get(f"{row.name}.weight", (row.weight.low, row.weight.high))
        share = min(max(share, low), high)
    values = {p.name: space.fixed.get(f"{row.name}.{p.name}", p.default) for p in row.parameters}
    return inside(space, f"default:{row.name}", row, dict.fromkeys(space.experts, share), values)
