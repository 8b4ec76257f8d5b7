"""The recipe: the complete, frozen, versioned description of one merge. No torch here.

A recipe names its models, and for each group of layers a method, its hyper-parameters and one weight per
expert. Written as canonical JSON; its digest also covers the models' contents and leaves out their names and
places, so that the same merge of the same bytes has the same digest wherever the files lie.
"""

import json
import math
import os
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from merging.catalog import Scalar, method
from merging.errors import InvalidRecipe

SCHEMA = "mergesearch/recipe/v1"
MOST_LAYERS = 10_000  # bounds the work of checking a recipe that nobody would mean
Modules = Literal["all", "attention", "mlp", "other"]
DType = Literal["float32", "bfloat16", "float16"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class GroupMerge(_Frozen):
    """How one group of tensors is merged.

    Attributes:
        layers: half-open range [first, end) of layers. The first range also holds what precedes the layers
            (embeddings), the last what follows them (final norm, head).
        modules: which tensors of those layers: `attention`, `mlp`, `other` (the rest: norms, embeddings,
            head), or `all`.
        weights: one weight per expert, by name; empty for a method that takes none.
    """

    layers: tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=1, le=MOST_LAYERS)]]
    modules: Modules = "all"
    method: str
    parameters: dict[str, Scalar] = {}
    weights: dict[str, float] = {}


class Recipe(_Frozen):
    """One merge, complete.

    Attributes:
        base: folder of the base model.
        experts: folder of each expert, by the name that weights use.
        seed: keys every random draw (DARE).
        dtype: what the result is stored in; None: as the base is.
        groups: cover every layer and module exactly once.
    """

    schema_: Literal["mergesearch/recipe/v1"] = Field(alias="schema")
    base: str
    experts: dict[str, str] = Field(min_length=1)
    seed: int = 0
    dtype: DType | None = None
    groups: tuple[GroupMerge, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _check_groups(self) -> "Recipe":
        for index, group in enumerate(self.groups):
            _check_group(group, tuple(self.experts), f"groups[{index}]")
        _check_cover(self.groups)
        return self

    @property
    def layer_count(self) -> int:
        """How many layers the recipe covers."""
        return max(g.layers[1] for g in self.groups)

    def to_json(self) -> str:
        """Canonical JSON: sorted keys, no spaces, shortest exact numbers."""
        return json.dumps(
            self.model_dump(mode="json", by_alias=True), sort_keys=True, separators=(",", ":"), allow_nan=False
        )

    def digest(self, fingerprints: Mapping[str, str]) -> str:
        """32 hex digits that name this merge of these bytes.

        Args:
            fingerprints: content fingerprint of the base under the key "base" and of every expert under its
                name prefixed with "expert:" (what `ModelSet.fingerprints` gives).
        """
        content = self.model_dump(mode="json", by_alias=True, exclude={"base", "experts"})
        content["groups"].sort(key=lambda group: (group["layers"], group["modules"]))
        order = sorted(self.experts, key=lambda name: _rank(name, fingerprints, content["groups"]))
        for group in content["groups"]:
            given = group["parameters"]
            row = method(group["method"])
            group["parameters"] = {p.name: p.check(given.get(p.name, p.default), p.name) for p in row.parameters}
            group["weights"] = [group["weights"][name] + 0.0 for name in order if group["weights"]]  # -0.0 is 0.0
        content["models"] = [fingerprints["base"], *(fingerprints[f"expert:{name}"] for name in order)]
        text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return blake2b(text.encode(), digest_size=16).hexdigest()


def _rank(name: str, fingerprints: Mapping[str, str], groups: list[dict[str, Any]]) -> tuple[str, list[float]]:
    """What orders experts in a digest: their content, and between equal contents their weights; never the name."""
    return fingerprints[f"expert:{name}"], [group["weights"].get(name, 0.0) for group in groups]


def _check_group(group: GroupMerge, experts: tuple[str, ...], key: str) -> None:
    row = method(group.method, f"{key}.method")
    if group.layers[0] >= group.layers[1]:
        raise InvalidRecipe(
            f"{key}.layers", list(group.layers), "holds no layer", "write [first, end), first below end"
        )
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
        declared.check(value, f"{key}.parameters.{name}")
    _check_weights(group, experts, key)


def _check_weights(group: GroupMerge, experts: tuple[str, ...], key: str) -> None:
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


def _check_cover(groups: tuple[GroupMerge, ...]) -> None:
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


def parse_recipe(content: Any) -> Recipe:
    """The recipe in parsed JSON or YAML.

    Raises:
        InvalidRecipe: not a recipe, of an unknown version, or impossible.
    """
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        found = content.get("schema") if isinstance(content, dict) else type(content).__name__
        raise InvalidRecipe("schema", found, "is not a known recipe version", f"write schema: {SCHEMA}")
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"])[1:] or "recipe"
        value = None if first["type"] == "missing" else first["input"]
        raise InvalidRecipe(key, value, f"is not valid ({first['msg']})", "see docs/recipe.md") from error


def resolved(recipe: Recipe, root: Path) -> Recipe:
    """The same recipe with relative model folders taken from `root`."""
    places = {name: str((root / path).resolve()) for name, path in recipe.experts.items()}
    return recipe.model_copy(update={"base": str((root / recipe.base).resolve()), "experts": places})


def relocated(recipe: Recipe, root: Path) -> Recipe:
    """The same recipe with its model folders written relative to `root`: what `resolved` undoes."""
    places = {name: os.path.relpath(path, root) for name, path in recipe.experts.items()}
    return recipe.model_copy(update={"base": os.path.relpath(recipe.base, root), "experts": places})
