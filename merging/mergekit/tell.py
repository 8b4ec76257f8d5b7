"""One of our merges in mergekit's words: what `translate` undoes. No torch here."""

from collections.abc import Iterable, Mapping, Sequence

from merging.catalog import Scalar, method
from merging.errors import InvalidRecipe
from merging.mergekit.names import METHODS, Foreign, Joint, Knob
from merging.mergekit.translate import Told
from merging.recipe import Merge, Value

BASE = "\0base"  # the base among the names of experts


def choose(merges: Iterable[Merge]) -> Foreign:
    """The mergekit method that can say all of these merges.

    Raises:
        InvalidRecipe: there is none, or the merges are of several methods: mergekit applies one to the whole model.
    """
    used = list(merges)
    names = {merge.method for merge in used if not _is_base(merge)} or {"layer_swap"}
    if names == {"linear", "layer_swap"}:
        names = {"linear"}  # one whole expert is an average of one
    if len(names) > 1:
        problem, remedy = "are several, and mergekit applies one to the whole model", "build it with mergesearch merge"
        raise InvalidRecipe("groups", sorted(names), problem, remedy)
    ours = names.pop()
    row = next((row for row in METHODS.values() if row.ours == ours), None)
    if row is None:
        raise InvalidRecipe("groups", ours, "is no method of mergekit", f"mergekit has {', '.join(METHODS)}")
    if row.base == "end" and any(_is_base(merge) for merge in used):
        raise InvalidRecipe("groups", ours, "cannot leave tensors as the base has them in mergekit", "use linear")
    return row


def _is_base(merge: Merge) -> bool:
    """Whether the merge is the base as it is."""
    return merge.method == "layer_swap" and not any(merge.weights.values())


def tell(row: Foreign, merge: Merge, experts: Sequence[str], end: str | None) -> Told:
    """What mergekit must be told, for all experts (and the base, under `BASE`, where it is an input).

    Args:
        end: the expert at t = 0, for a method between two ends.

    Raises:
        InvalidRecipe: an option means what mergekit does not do.
    """
    if merge.method == "layer_swap" and row.ours != "layer_swap":
        return _as_weights(row, merge, experts)
    _check_fixed(row, merge)
    each: dict[str, dict[str, Scalar]] = {name: {} for name in experts}
    shared: dict[str, Scalar] = {}
    for knob in row.knobs:
        if knob.ours and method(row.ours).parameter(knob.ours) is not None:
            if knob.per_model:
                for name in experts:
                    each[name][knob.name] = _foreign_value(row, knob, merge, name)
            else:
                shared[knob.name] = _foreign_value(row, knob, merge, experts[0])
    if row.joint:
        shared |= _separate(row.joint, merge, experts[0])
    if row.weights == "weight":
        for name in experts:
            each[name]["weight"] = merge.weights[name]
    if row.weights == "t":
        shared["t"] = sum(weight for name, weight in merge.weights.items() if name != end) / sum(merge.weights.values())
    if row.weights == "equal" and row.ours == "layer_swap":
        chosen = next((name for name in experts if merge.weights.get(name)), BASE)
        return Told(shared, {chosen: each.get(chosen) or {"scale": float(str(merge.parameters.get("scale", 1.0)))}})
    if row.weights == "equal" and len(set(merge.weights.values())) > 1:
        problem = f"are not equal, and mergekit's {row.name} takes none"
        raise InvalidRecipe("weights", merge.weights, problem, "give every expert the same")
    origin = row.base != "optional" or _own(merge, "origin", experts[0]) == "base"
    return Told(shared, each, origin=origin)


def _as_weights(row: Foreign, merge: Merge, experts: Sequence[str]) -> Told:
    """One expert or the base as it is, by the weights of another method."""
    if merge.parameters.get("scale", 1.0) != 1.0:
        raise InvalidRecipe("parameters.scale", merge.parameters["scale"], "is not said beside linear", "use 1")
    each: dict[str, dict[str, Scalar]] = {name: {"weight": merge.weights.get(name, 0.0)} for name in experts}
    if row.base == "input":
        each[BASE] = {"weight": 0.0 if any(merge.weights.values()) else 1.0}
    elif row.weights != "weight":
        raise InvalidRecipe("groups", row.ours, "cannot leave tensors as the base has them in mergekit", "use linear")
    return Told({}, each)


def _check_fixed(row: Foreign, merge: Merge) -> None:
    """What no parameter of mergekit says must be as mergekit does it."""
    said = {knob.ours for knob in row.knobs} | ({row.joint.ours} if row.joint else set())
    said |= {"origin"} if row.base == "optional" else set()
    for parameter in method(row.ours).parameters:
        if parameter.name in said:
            continue
        theirs = row.fixed.get(parameter.name, parameter.default)
        value = merge.parameters.get(parameter.name, parameter.default)
        if value != theirs:
            problem = f"is {theirs} in mergekit's {row.name}"
            raise InvalidRecipe(
                f"parameters.{parameter.name}", value, problem, f"use {theirs} to write it for mergekit"
            )


def _own(merge: Merge, name: str, expert: str) -> Scalar:
    """The value of our parameter for an expert."""
    declared = method(merge.method).parameter(name)
    if declared is None:
        raise ValueError(f"{merge.method} has no parameter {name}")
    value: Value = merge.parameters.get(name, declared.default)
    return value.get(expert, declared.default) if isinstance(value, Mapping) else value


def _separate(joint: Joint, merge: Merge, expert: str) -> dict[str, Scalar]:
    value = _own(merge, joint.ours, expert)
    return dict(zip(joint.knobs, next(theirs for theirs, ours in joint.values.items() if ours == value), strict=True))


def _foreign_value(row: Foreign, knob: Knob, merge: Merge, expert: str) -> Scalar:
    value = _own(merge, knob.ours, expert)
    if knob.values:
        theirs = {ours: foreign for foreign, ours in knob.values.items()}
        if value not in theirs:
            remedy = f"use one of {list(theirs)} to write it for mergekit"
            raise InvalidRecipe(f"parameters.{knob.ours}", value, f"is not done by mergekit's {row.name}", remedy)
        return theirs[value]
    if knob.name == "epsilon" and "density" in {other.name for other in row.knobs}:
        density = float(_own(merge, "density", expert))
        return float(value) * min(density, 1 - density)
    return value
