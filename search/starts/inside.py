"""Where a wanted recipe lies in a search space, if the space reaches it."""

from collections.abc import Mapping, Sequence

from merging.catalog import CATALOG, Method, Scalar
from merging.errors import InvalidRecipe
from merging.recipe import GroupMerge, Merge
from search.space import Dimension, Space
from search.starts.start import Start


class _OutsideSpace(Exception):
    """A wanted value lies outside its dimension."""


def inside(
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


def located(space: Space, origin: str, groups: Sequence[GroupMerge]) -> Start:
    """A recipe of these groups as a start: a point of the space where the space holds exactly that recipe.

    Args:
        groups: cover the models' layers.
    """
    params: dict[str, Scalar] = {}

    def pick(dimension: Dimension) -> Scalar:
        merge = merge_at(groups, space.layer_of(dimension), dimension.modules)
        params[dimension.name] = value = _value_in(merge, dimension)
        return value

    outside = Start(origin, space.recipe(tuple(groups)), None)
    try:
        recipe = space.walk(pick)
    except (_OutsideSpace, InvalidRecipe):
        return outside
    same = all(
        _alike(group, merge_at(groups, layer, group.modules)) for group in recipe.groups for layer in _span(group)
    )
    return Start(origin, recipe, params) if same else outside


def nearest(space: Space, origin: str, groups: Sequence[GroupMerge]) -> Start | None:
    """The point of the space that has at each depth what these groups have there, as far as its bounds go.

    Args:
        groups: cover the models' layers.

    Returns:
        None where the space has not the method, or not its settings, or the point makes no recipe.
    """
    params: dict[str, Scalar] = {}

    def pick(dimension: Dimension) -> Scalar:
        merge = merge_at(groups, space.layer_of(dimension), dimension.modules)
        params[dimension.name] = value = _value_in(merge, dimension, clipped=True)
        return value

    try:
        recipe = space.walk(pick)
    except (_OutsideSpace, InvalidRecipe):
        return None
    # where a space asks for nothing, nobody has looked at the method
    same = all(group.method == merge_at(groups, group.layers[0], group.modules).method for group in recipe.groups)
    return Start(origin, recipe, params) if same else None


def merge_at(groups: Sequence[GroupMerge], layer: int, modules: str) -> GroupMerge:
    """The group that says how these modules of a layer are merged; of `all`, the one that holds its attention."""
    here = [g for g in groups if g.layers[0] <= layer < g.layers[1]]
    wanted = ("all", "attention" if modules == "all" else modules)
    return next(g for g in here if g.modules in wanted)


def _span(group: GroupMerge) -> range:
    return range(*group.layers)


def _value_in(merge: Merge, dimension: Dimension, *, clipped: bool = False) -> Scalar:
    """What a dimension would have to be, or if it may be clipped, the nearest to that."""
    if dimension.role == "method":
        value: Scalar = merge.method
    elif dimension.role == "source":
        value = next((name for name, weight in merge.weights.items() if weight), "")
    elif merge.method != dimension.method:
        raise _OutsideSpace
    elif dimension.role == "weight":
        value = merge.weights[dimension.expert]
    else:
        found = merge.parameters.get(dimension.parameter, _default(merge.method, dimension.parameter))
        if isinstance(found, dict):
            raise _OutsideSpace
        value = found
    if dimension.kind in ("float", "int"):
        within = min(max(float(value), dimension.low), dimension.high)
        if within != float(value):
            if not clipped:
                raise _OutsideSpace
            value = round(within) if dimension.kind == "int" else within
    if dimension.kind == "choice" and value not in dimension.choices:
        raise _OutsideSpace
    return value


def _default(method: str, parameter: str) -> Scalar:
    row = CATALOG[method].parameter(parameter)
    assert row is not None, "a dimension names a parameter of its method"
    return row.default


def _alike(ours: Merge, theirs: Merge) -> bool:
    """Whether two merges are the same; of parameters left out, the defaults count."""
    names = [p.name for p in CATALOG[ours.method].parameters]
    if ours.method != theirs.method or ours.weights != theirs.weights:
        return False
    filled = ({n: m.parameters.get(n, _default(m.method, n)) for n in names} for m in (ours, theirs))
    first, second = filled
    return first == second
