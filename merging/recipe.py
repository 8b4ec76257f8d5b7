"""The recipe: the complete, frozen, versioned description of one merge. No torch here.

A recipe names its models, and for each group of layers a method, its hyper-parameters and one weight per
expert. Written as canonical JSON; its digest also covers the models' contents and leaves out their names and
places, so that the same merge of the same bytes has the same digest wherever the files lie.
"""

import json
import os
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from merging.catalog import Scalar, method
from merging.compression import Compression
from merging.errors import InvalidRecipe
from merging.soundness import check_cover, check_merge, check_override, check_slices, check_span, check_suite

SCHEMA = "mergesearch/recipe/v1"
MOST_LAYERS = 10_000  # bounds the work of checking a recipe that nobody would mean
Modules = Literal["all", "attention", "mlp", "other"]
DType = Literal["float32", "bfloat16", "float16"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


Span = tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=1, le=MOST_LAYERS)]]
Value = Scalar | dict[str, Scalar]


class Merge(_Frozen):
    """A method with its numbers.

    Attributes:
        parameters: the method's hyper-parameters; those left out have their defaults. Where the catalog says
            `per_expert`, a value may be given for each expert by name.
        weights: one weight per expert, by name; empty for a method that takes none.
    """

    method: str
    parameters: dict[str, Value] = {}
    weights: dict[str, float] = {}

    @field_validator("method")
    @classmethod
    def _own_name(cls, value: str) -> str:
        """An alias becomes the method's own name; what is unknown is refused where its key is known."""
        try:
            return method(value).name
        except InvalidRecipe:
            return value


class GroupMerge(Merge):
    """How one group of tensors is merged.

    Attributes:
        layers: half-open range [first, end) of layers. The first range also holds what precedes the layers
            (embeddings), the last what follows them (final norm, head).
        modules: which tensors of those layers: `attention`, `mlp`, `other` (the rest: norms, embeddings,
            head), or `all`.
    """

    layers: Span
    modules: Modules = "all"


class Override(Merge):
    """How tensors are merged that some text in their names sets apart from their group; the first that fits counts.

    Attributes:
        contains: a part of the name, letter by letter; empty: every name.
        layers: only in these layers.
        edge: only what stands before the layers (embeddings) or after them (final norm, head).
    """

    contains: str = ""
    layers: Span | None = None
    edge: Literal["before", "after"] | None = None


class Slice(_Frozen):
    """A run of the result's layers and where they come from: with several, layers are stacked, left out or repeated.

    Attributes:
        layers: half-open range of the models' layers.
        sources: another range, of the same length, for single experts by name.
    """

    layers: Span
    sources: dict[str, Span] = {}


class Recipe(_Frozen):
    """One merge, complete.

    Attributes:
        base: folder of the base model.
        experts: folder of each expert, by the name that weights use.
        seed: keys every random draw (DARE).
        dtype: what the result is stored in; None: as the base is.
        tokenizer: whose vocabulary the result has: `base`, an expert's name, or the `union` of all.
        suite: digest of the search documents that its methods look at; empty: none does.
        compress: what packs the experts before they are merged; None: they are taken as they are.
        slices: the result's layers, run after run; empty: the models' layers as they are.
        groups: cover every layer of the result and every module exactly once.
        overrides: exceptions by tensor name.
    """

    schema_: Literal["mergesearch/recipe/v1"] = Field(alias="schema")
    base: str
    experts: dict[str, str] = Field(min_length=1)
    seed: int = 0
    dtype: DType | None = None
    tokenizer: str = "base"
    suite: Annotated[str, Field(pattern="^([0-9a-f]{32})?$")] = ""
    compress: Compression | None = None
    slices: tuple[Slice, ...] = ()
    groups: tuple[GroupMerge, ...] = Field(min_length=1)
    overrides: tuple[Override, ...] = ()

    @model_validator(mode="after")
    def _check(self) -> "Recipe":
        experts = tuple(self.experts)
        if self.compress is not None:
            self.compress.checked("compress")
        if self.tokenizer not in ("base", "union", *experts):
            remedy = f"use base, union or one of {', '.join(experts)}"
            raise InvalidRecipe("tokenizer", self.tokenizer, "is no model of this recipe", remedy)
        check_slices(self.slices, experts, self.layer_count)
        for index, group in enumerate(self.groups):
            check_span(group.layers, f"groups[{index}].layers")
            check_merge(group, experts, f"groups[{index}]")
        for index, override in enumerate(self.overrides):
            check_override(override, f"overrides[{index}]", self.layer_count)
            check_merge(override, experts, f"overrides[{index}]")
        check_cover(self.groups)
        check_suite((*self.groups, *self.overrides), self.suite)
        return self

    @property
    def layer_count(self) -> int:
        """How many layers the recipe covers."""
        return max(g.layers[1] for g in self.groups)

    def to_json(self) -> str:
        """Canonical JSON: sorted keys, no spaces, shortest exact numbers; `suite` and `compress` only if given."""
        silent = {name for name in ("suite", "compress") if not getattr(self, name)}
        content = self.model_dump(mode="json", by_alias=True, exclude=silent)
        return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)

    def digest(self, fingerprints: Mapping[str, str]) -> str:
        """32 hex digits that name this merge of these bytes.

        Args:
            fingerprints: content fingerprint of the base under the key "base" and of every expert under its
                name prefixed with "expert:" (what `ModelSet.fingerprints` gives).
        """
        content = self.model_dump(mode="json", by_alias=True, exclude={"base", "experts"})
        content["groups"].sort(key=lambda group: (group["layers"], group["modules"]))
        merges = [*content["groups"], *content["overrides"]]
        order = sorted(self.experts, key=lambda name: _rank(name, fingerprints, merges))
        for merge in merges:
            merge["parameters"] = _effective(merge, order)
            merge["weights"] = [merge["weights"][name] + 0.0 for name in order if merge["weights"]]  # -0.0 is 0.0
        for part in content["slices"]:
            part["sources"] = [part["sources"].get(name, part["layers"]) for name in order]
        if self.tokenizer in self.experts:
            content["tokenizer"] = order.index(self.tokenizer)
        if self.compress is not None:
            content["compress"] = self.compress.checked("compress").model_dump()
        for later in ("slices", "overrides", "tokenizer", "suite", "compress"):  # absent, where they say nothing
            if content[later] in ([], "base", "", None):
                del content[later]
        content["models"] = [fingerprints["base"], *(fingerprints[f"expert:{name}"] for name in order)]
        text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return blake2b(text.encode(), digest_size=16).hexdigest()


def _effective(merge: dict[str, Any], order: list[str]) -> dict[str, Any]:
    """Every parameter of the method, typed; late ones only where they differ from their default."""
    found: dict[str, Any] = {}
    for parameter in method(merge["method"]).parameters:
        given = merge["parameters"].get(parameter.name, parameter.default)
        if isinstance(given, dict):
            values = [parameter.check(given.get(name, parameter.default), parameter.name) for name in order]
            found[parameter.name] = values[0] if len(set(values)) == 1 else values
        else:
            found[parameter.name] = parameter.check(given, parameter.name)
        if parameter.late and found[parameter.name] == parameter.default:
            del found[parameter.name]
    return found


def _rank(name: str, fingerprints: Mapping[str, str], merges: list[dict[str, Any]]) -> tuple[str, list[float], str]:
    """What orders experts in a digest: their content, and between equal contents their numbers; never the name."""
    numbers = [[value.get(name) for value in m["parameters"].values() if isinstance(value, dict)] for m in merges]
    return fingerprints[f"expert:{name}"], [m["weights"].get(name, 0.0) for m in merges], json.dumps(numbers)


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
