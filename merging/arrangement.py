"""Which tensors the result of a recipe has, and which tensor of each model each is made from.

Without slices that is one to one. With slices (layers stacked, left out or repeated; passthrough merges) the result
has other layers than the models, and an expert may give another layer than the base.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from merging.errors import InvalidRecipe
from merging.layers import Layout, Place
from merging.recipe import Recipe


@dataclass(frozen=True)
class Part:
    """One tensor of the result.

    Attributes:
        name: its name in the result.
        place: where it stands in the result.
        base: the base's tensor it is made from.
        experts: the experts' tensors, in the order of `ModelSet.names`.
    """

    name: str
    place: Place
    base: str
    experts: tuple[str, ...]


@dataclass(frozen=True)
class Arrangement:
    """All tensors of the result.

    Attributes:
        layer_count: layers of the result.
        parts: by name, sorted.
        origins: for each layer of the result, the base's layer it comes from.
        models_layer_count: layers of the models.
    """

    layer_count: int
    parts: Mapping[str, Part]
    origins: tuple[int, ...]
    models_layer_count: int

    @property
    def stacked(self) -> bool:
        """Whether layers come from elsewhere than from their own place."""
        return self.origins != tuple(range(self.models_layer_count))


def arrange(recipe: Recipe, layout: Layout, experts: Sequence[str]) -> Arrangement:
    """The result's tensors.

    Args:
        layout: that of the models.
        experts: their names, in the order of every stack.

    Raises:
        InvalidRecipe: the recipe is for another number of layers, or its slices do not fit these models.
    """
    count = layout.layer_count
    if not recipe.slices:
        if recipe.layer_count != count:
            problem = f"layers are described, but the models have {count}"
            remedy = f"make the groups' layers cover [0, {count}) exactly"
            raise InvalidRecipe("groups", recipe.layer_count, problem, remedy)
        parts = {name: Part(name, place, name, (name,) * len(experts)) for name, place in layout.places.items()}
        return Arrangement(count, parts, tuple(range(count)), count)
    _check_stackable(layout)
    rows = _rows(recipe, count, experts)
    of_layer: dict[int, list[str]] = {}
    for name, place in layout.places.items():
        if isinstance(place.layer, int):
            of_layer.setdefault(place.layer, []).append(name)
    outside = {n: p for n, p in layout.places.items() if not isinstance(p.layer, int)}
    parts = {name: Part(name, place, name, (name,) * len(experts)) for name, place in outside.items()}
    for layer, (origin, *others) in enumerate(rows):
        for name in of_layer.get(origin, ()):
            sources = tuple(_moved(name, origin, other) for other in others)
            _check_present(sources, layout, recipe)
            made = _moved(name, origin, layer)
            parts[made] = Part(made, Place(layer, layout.places[name].module), name, sources)
    return Arrangement(len(rows), dict(sorted(parts.items())), tuple(row[0] for row in rows), count)


def _rows(recipe: Recipe, count: int, experts: Sequence[str]) -> list[tuple[int, ...]]:
    """For each layer of the result, the base's layer, then each expert's."""
    rows: list[tuple[int, ...]] = []
    for index, part in enumerate(recipe.slices):
        spans = [part.layers, *(part.sources.get(name, part.layers) for name in experts)]
        for span in spans:
            if span[1] > count:
                problem = f"goes beyond the models' {count} layers"
                raise InvalidRecipe(f"slices[{index}]", list(span), problem, f"stay within [0, {count})")
        rows += [tuple(span[0] + i for span in spans) for i in range(part.layers[1] - part.layers[0])]
    return rows


def _moved(name: str, source: int, target: int) -> str:
    """The name with its layer's number replaced: the first part that is a number, which is the stack's."""
    return re.sub(rf"(^|\.){source}(?=\.)", rf"\g<1>{target}", name, count=1)


def _check_present(names: Sequence[str], layout: Layout, recipe: Recipe) -> None:
    for name in names:
        if name not in layout.places:
            problem = f"stack layers of different kinds: there is no {name}"
            raise InvalidRecipe("slices", len(recipe.slices), problem, "take layers that have the same tensors")


def _check_stackable(layout: Layout) -> None:
    """Slices count the layers of one stack; with an encoder beside a decoder their numbers would be ambiguous."""
    stacks = {_stack(name, place.layer) for name, place in layout.places.items() if isinstance(place.layer, int)}
    if len(stacks) != 1 or None in stacks:
        problem = f"are counted in one stack of layers, and this model has {len(stacks)}"
        raise InvalidRecipe("slices", None, problem, "leave out slices for such models")


def _stack(name: str, layer: int) -> str | None:
    found = re.search(rf"(^|\.){layer}(?=\.)", name)
    return name[: found.start()] if found else None
