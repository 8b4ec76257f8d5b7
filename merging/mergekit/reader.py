"""Reads a mergekit configuration as a recipe. No torch here.

Every tensor's parameters are resolved by mergekit's rules (scopes, filters, gradients), said in our words, and tensors
that agree are gathered into groups again.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from merging.arrangement import Part, arrange
from merging.errors import InvalidRecipe
from merging.layers import Layout
from merging.mergekit.cast import Cast, cast, donor
from merging.mergekit.document import Document, OutputSlice, parse
from merging.mergekit.encode import encode
from merging.mergekit.names import Foreign, foreign
from merging.mergekit.setting import check_known, evaluate
from merging.mergekit.translate import Numbers, Told, translate
from merging.recipe import SCHEMA, GroupMerge, Recipe, Slice, resolved


def read(content: Any, root: Path, layout_of: Callable[[Path], Layout]) -> Recipe:
    """The recipe that merges what a mergekit configuration says, and as mergekit does.

    Args:
        content: the parsed YAML.
        root: the folder that relative model folders are taken from.
        layout_of: opens a model's folder and says what its tensors are.

    Raises:
        InvalidRecipe: it is no such configuration, or says something that a recipe cannot.
        InvalidModel: the model that decides the layout cannot be opened.
    """
    document = parse(content)
    row = foreign(document.merge_method)
    _check_parameters(document, row)
    layout = layout_of((root / donor(document)).resolve())
    models = cast(document, row, layout.layer_count)
    skeleton = _skeleton(document, models, layout.layer_count)
    arrangement = arrange(skeleton, layout, tuple(skeleton.experts))
    reading = _Reading(document, row, models, tuple(skeleton.experts))
    numbers = {name: reading.numbers(part) for name, part in arrangement.parts.items()}
    groups, overrides = encode(arrangement, numbers, document.filters())
    fields = skeleton.model_dump(by_alias=True) | {"groups": groups, "overrides": overrides}
    return resolved(Recipe.model_validate(fields), root)


def _check_parameters(document: Document, row: Foreign) -> None:
    check_known(row, document.parameters, "parameters")
    for index, model in enumerate(document.models or ()):
        check_known(row, model.parameters, f"models[{index}].parameters", of_model=True)
    for index, part in enumerate(document.slices or ()):
        check_known(row, part.parameters, f"slices[{index}].parameters")
        for number, source in enumerate(part.sources):
            key = f"slices[{index}].sources[{number}].parameters"
            check_known(row, source.parameters, key, of_model=True)


def _skeleton(document: Document, models: Cast, layer_count: int) -> Recipe:
    """The recipe with its models and slices, and a merge that says nothing yet."""
    experts = {name: reference for reference, name in models.experts.items()}
    slices = _slices(models, layer_count)
    count = sum(part.layers[1] - part.layers[0] for part in slices) or layer_count
    nothing = GroupMerge(layers=(0, count), method="layer_swap", weights=dict.fromkeys(experts, 0.0))
    return Recipe.model_validate(
        {
            "schema": SCHEMA,
            "base": models.base,
            "experts": experts,
            "dtype": document.stored(),
            "tokenizer": _tokenizer(document, models),
            "slices": slices,
            "groups": [nothing],
        }
    )


def _slices(models: Cast, layer_count: int) -> tuple[Slice, ...]:
    """The recipe's slices, joined where they go on; none where every layer stays where it is."""
    found: list[Slice] = []
    for part in models.slices:
        spans = {source.model: source.layer_range for source in part.sources}
        layers = spans.get(models.base, part.sources[0].layer_range)
        sources = {models.experts[m]: span for m, span in spans.items() if m in models.experts and span != layers}
        follows = found and not sources and not found[-1].sources and found[-1].layers[1] == layers[0]
        if follows:
            layers = (found.pop().layers[0], layers[1])
        found.append(Slice(layers=layers, sources=sources))
    return () if found == [Slice(layers=(0, layer_count))] else tuple(found)


def _tokenizer(document: Document, models: Cast) -> str:
    source = document.tokenizer.source if document.tokenizer else document.tokenizer_source or "base"
    if source in ("base", "union"):
        return source
    if source == models.base:
        return "base"
    if source not in models.experts:
        raise InvalidRecipe("tokenizer.source", source, "is no model of this merge", "use union, base or a model")
    return models.experts[source]


@dataclass(frozen=True)
class _Reading:
    """Resolves parameters tensor by tensor."""

    document: Document
    row: Foreign
    models: Cast
    experts: Sequence[str]

    def numbers(self, part: Part) -> Numbers:
        """The merge of one tensor of the result."""
        chosen, at = self._place(part)
        wide = [chosen.parameters, self.document.parameters]
        shared = {k.name: evaluate(k, wide, part.name, at) for k in self.row.knobs if not k.per_model}
        names = dict(zip(self.experts, part.experts, strict=True))
        each: dict[str, Mapping[str, Any]] = {}
        for source in chosen.sources:
            expert = self.models.experts.get(source.model)
            if expert is not None:
                near = [source.parameters, *wide]
                knobs = [k for k in self.row.knobs if k.per_model]
                each[expert] = {k.name: evaluate(k, near, names[expert], at) for k in knobs}
        end = self.models.experts.get(chosen.base_model or self.document.base_model or "")
        return translate(self.row, Told(shared, each, end, self.models.origin), self.experts)

    def _place(self, part: Part) -> tuple[OutputSlice, float]:
        """The slice a tensor lies in and how far along; what lies outside the layers stands at the slice's start."""
        layer, slices = part.place.layer, self.models.slices
        if not isinstance(layer, int):
            return slices[0 if layer == "before" else -1], 0.0
        for chosen in slices:
            first, end = chosen.sources[0].layer_range
            if layer < end - first:
                return chosen, layer / (end - first - 1) if end - first > 1 else 1.0
            layer -= end - first
        raise AssertionError("the slices make up all layers")
