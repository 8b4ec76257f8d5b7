"""Whether a recipe makes sense: what `Recipe` asks of its parts. No torch here."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from merging.catalog import Parameter, method
from merging.errors import InvalidRecipe

if TYPE_CHECKING:  # the records are made of these checks
    from merging.recipe import GroupMerge, Merge, Override, Slice, Value


def check_merge(group: "Merge", experts: tuple[str, ...], key: str) -> None:
    """The method is known, takes so many experts, and every number is one it takes."""
    row = method(group.method, f"{key}.method")
    fewest, most = row.experts
    if not fewest <= len(experts) <= most:
        wants = str(most) if fewest == most else f"{fewest} to {most}"
        raise InvalidRecipe(
            f"{key}.method", group.method, f"takes {wants} experts and got {len(experts)}", "choose another method"
        )
    for name, value in group.parameters.items():
        declared = row.parameter(name) if name != "weight" else None
        if declared is None:
            known = ", ".join(p.name for p in row.parameters) or "none"
            raise InvalidRecipe(
                f"{key}.parameters.{name}", value, f"is no parameter of {row.name}", f"its parameters: {known}"
            )
        _check_value(declared, value, experts, f"{key}.parameters.{name}")
    _check_weights(group, experts, key)


def _check_weights(group: "Merge", experts: tuple[str, ...], key: str) -> None:
    row = method(group.method)
    if row.weight is None:
        if group.weights:
            raise InvalidRecipe(f"{key}.weights", group.weights, f"are not used by {row.name}", "leave them out")
        return
    for name, weight in group.weights.items():
        if name not in experts:
            raise InvalidRecipe(f"{key}.weights", name, "is no expert", f"use {', '.join(experts)}")
        if not math.isfinite(weight):
            raise InvalidRecipe(f"{key}.weights.{name}", weight, "is not finite", "use a finite number")
        row.weight.check(weight, f"{key}.weights.{name}")
    missing = [name for name in experts if name not in group.weights]
    if missing:
        raise InvalidRecipe(f"{key}.weights", missing[0], "has no weight", "give every expert one (0 leaves it out)")
    if row.normalised and not any(group.weights.values()):
        raise InvalidRecipe(f"{key}.weights", group.weights, "are all zero", f"{row.name} needs one above zero")
    if row.weighting == "one_hot" and sum(weight != 0 for weight in group.weights.values()) > 1:
        problem, remedy = "name more than one expert", f"{row.name} takes one; method linear averages several"
        raise InvalidRecipe(f"{key}.weights", group.weights, problem, remedy)


def check_cover(groups: "tuple[GroupMerge, ...]") -> None:
    """Every layer and module lies in exactly one group."""
    end = max(g.layers[1] for g in groups)
    for modules in ("attention", "mlp", "other"):
        covered = [0] * end
        for group in groups:
            if group.modules in ("all", modules):
                for layer in range(*group.layers):
                    covered[layer] += 1
        for layer, count in enumerate(covered):
            if count != 1:
                problem = "is covered by no group" if not count else f"is covered by {count} groups"
                raise InvalidRecipe("groups", f"layer {layer} ({modules})", problem, "cover each exactly once")


def check_suite(merges: "Sequence[Merge]", suite: str) -> None:
    """A suite is named where a method looks at data, and nowhere else: it is part of the digest."""
    looking = [merge.method for merge in merges if method(merge.method).artefacts]
    if looking and not suite:
        remedy = "take the recipe from a study, or name the digest of its suite"
        raise InvalidRecipe("suite", None, f"is missing, and {looking[0]} looks at search documents", remedy)
    if suite and not looking:
        raise InvalidRecipe("suite", suite, "is named, but no method looks at data", "leave it out")


def _check_value(declared: Parameter, value: "Value", experts: tuple[str, ...], key: str) -> None:
    if not isinstance(value, dict):
        declared.check(value, key)
        return
    if not declared.per_expert:
        raise InvalidRecipe(key, value, "is one number for all experts", "give one value")
    for name, each in value.items():
        if name not in experts:
            raise InvalidRecipe(key, name, "is no expert", f"use {', '.join(experts)}")
        declared.check(each, f"{key}.{name}")


def check_span(span: tuple[int, int], key: str) -> None:
    """The range holds a layer."""
    if span[0] >= span[1]:
        raise InvalidRecipe(key, list(span), "holds no layer", "write [first, end), first below end")


def check_slices(slices: "tuple[Slice, ...]", experts: tuple[str, ...], layer_count: int) -> None:
    """The slices name experts, are as long in each, and make as many layers as the groups cover."""
    for index, part in enumerate(slices):
        key = f"slices[{index}]"
        check_span(part.layers, f"{key}.layers")
        for name, span in part.sources.items():
            if name not in experts:
                raise InvalidRecipe(f"{key}.sources", name, "is no expert", f"use {', '.join(experts)}")
            if span[1] - span[0] != part.layers[1] - part.layers[0]:
                problem = f"is not as long as {list(part.layers)}"
                raise InvalidRecipe(f"{key}.sources.{name}", list(span), problem, "take as many layers of each model")
    total = sum(part.layers[1] - part.layers[0] for part in slices)
    if slices and total != layer_count:
        problem = f"make {total} layers, but the groups cover {layer_count}"
        raise InvalidRecipe("slices", total, problem, "let the groups' layers count the layers of the result")


def check_override(override: "Override", key: str, layer_count: int) -> None:
    """The exception can hold for some tensor."""
    if override.layers is not None:
        check_span(override.layers, f"{key}.layers")
        if override.layers[1] > layer_count:
            problem = f"goes beyond the {layer_count} layers"
            raise InvalidRecipe(f"{key}.layers", list(override.layers), problem, "stay within the groups' layers")
        if override.edge is not None:
            raise InvalidRecipe(f"{key}.edge", override.edge, "lies outside all layers", "leave out layers or edge")
