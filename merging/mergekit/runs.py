"""Runs of a result's layers that mergekit can be told in one output slice. No torch here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from merging.arrangement import Arrangement
from merging.mergekit.cover import suffix
from merging.mergekit.tell import BASE
from merging.mergekit.translate import Told
from merging.recipe import Recipe


@dataclass(frozen=True)
class Run:
    """Layers that are merged alike, name by name, and come from consecutive layers of every model.

    Attributes:
        told: what holds for each tensor of these layers, by its name in the result; the first run also has what
            stands before the layers, the last what stands after.
        names: for each model (experts and `BASE`), the tensor it gives for each tensor of the result.
        spans: the layers taken from each model.
    """

    told: Mapping[str, Told]
    names: Mapping[str, Mapping[str, str]]
    spans: Mapping[str, tuple[int, int]]


def runs(recipe: Recipe, arrangement: Arrangement, experts: Sequence[str], told: Mapping[str, Told]) -> tuple[Run, ...]:
    """The fewest runs that make up the result's layers, in order."""
    count = arrangement.layer_count
    rows = _rows(recipe, experts, count)
    layers: list[list[str]] = [[] for _ in range(count)]
    for name, part in arrangement.parts.items():
        if isinstance(part.place.layer, int):
            layers[part.place.layer].append(name)
    alike = [{suffix(name): told[name] for name in names} for names in layers]

    def goes_on(layer: int) -> bool:
        follows = all(rows[layer][model] == rows[layer - 1][model] + 1 for model in rows[layer])
        return layer > 0 and follows and alike[layer] == alike[layer - 1]

    starts = [layer for layer in range(count) if not goes_on(layer)]
    found = []
    for first, end in zip(starts, [*starts[1:], count], strict=True):
        sides = {side for side, at in (("before", first == 0), ("after", end == count)) if at}
        beside = [name for name, part in arrangement.parts.items() if part.place.layer in sides]
        inside = [name for names in layers[first:end] for name in names]
        names = [*beside, *inside]
        spans = {model: (at, at + end - first) for model, at in rows[first].items()}
        found.append(Run({name: told[name] for name in names}, _sources(arrangement, experts, names), spans))
    return tuple(found)


def _rows(recipe: Recipe, experts: Sequence[str], count: int) -> list[dict[str, int]]:
    """For each layer of the result, the layer of each model that it is made from."""
    if not recipe.slices:
        return [dict.fromkeys((BASE, *experts), layer) for layer in range(count)]
    rows = []
    for part in recipe.slices:
        starts = {BASE: part.layers[0]} | {name: part.sources.get(name, part.layers)[0] for name in experts}
        rows += [{model: at + i for model, at in starts.items()} for i in range(part.layers[1] - part.layers[0])]
    return rows


def _sources(arrangement: Arrangement, experts: Sequence[str], names: Sequence[str]) -> dict[str, dict[str, str]]:
    parts = {name: arrangement.parts[name] for name in names}
    found = {expert: {n: part.experts[i] for n, part in parts.items()} for i, expert in enumerate(experts)}
    return found | {BASE: {name: part.base for name, part in parts.items()}}
