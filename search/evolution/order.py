"""A genome of layers: which of the models' layers the result has, in which order, and one weight an expert.

Layers are repeated, left out and moved in contiguous blocks only. All experts give the same layers, so that each layer
of the result is a merge of layers that belong together.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from merging.catalog import CATALOG
from merging.recipe import GroupMerge, Recipe, Slice
from search.space import Space

METHOD = "task_arithmetic"
TRIES = 50  # draws of an operator, until one is allowed
_ALIKE = 1e-6

Layers = tuple[int, ...]
Run = tuple[int, int]


@dataclass(frozen=True)
class Order:
    """A genome.

    Attributes:
        layers: for each layer of the result, the models' layer it is.
        weights: of each expert, in the study's order.
    """

    layers: Layers
    weights: tuple[float, ...]


@dataclass(frozen=True)
class Limits:
    """What an order may be.

    Attributes:
        count: layers of the models.
        extra: by so many layers the result may be deeper or shallower.
        blocks: most runs.
    """

    count: int
    extra: int
    blocks: int

    @property
    def shallowest(self) -> int:
        """Fewest layers of a result."""
        return max(1, self.count - self.extra)

    @property
    def deepest(self) -> int:
        """Most layers of a result."""
        return self.count + self.extra

    def allow(self, layers: Layers) -> bool:
        """Whether they hold."""
        return self.shallowest <= len(layers) <= self.deepest and len(runs_of(layers)) <= self.blocks


def runs_of(layers: Layers) -> list[Run]:
    """The contiguous blocks [first, end) that the layers are, as few as there can be."""
    runs: list[Run] = []
    for layer in layers:
        if runs and runs[-1][1] == layer:
            runs[-1] = (runs[-1][0], layer + 1)
        else:
            runs.append((layer, layer + 1))
    return runs


def repeated(layers: Layers, first: int, end: int) -> Layers:
    """With the block at [first, end) of the result once more, right after it."""
    return layers[:end] + layers[first:end] + layers[end:]


def dropped(layers: Layers, first: int, end: int) -> Layers:
    """Without the block at [first, end) of the result."""
    return layers[:first] + layers[end:]


def shifted(layers: Layers, run: int, side: int, by: int) -> Layers:
    """With one end of a run moved: its beginning (side 0) or its end (side 1).

    Raises:
        ValueError: the run would be empty, or begin before the first layer.
    """
    runs = runs_of(layers)
    first, end = runs[run]
    first, end = (first + by, end) if side == 0 else (first, end + by)
    if not 0 <= first < end:
        raise ValueError(f"run [{first}, {end}) is none")
    runs[run] = (first, end)
    return tuple(layer for first, end in runs for layer in range(first, end))


def crossed(upper: Layers, lower: Layers, depth: float) -> Layers:
    """One's layers down to that share of its depth, the other's from there on."""
    return upper[: round(depth * len(upper))] + lower[round(depth * len(lower)) :]


def changed(layers: Layers, limits: Limits, rng: np.random.Generator) -> Layers:
    """The layers after one operator: a block repeated or dropped, or an end of a run shifted by one or two layers.

    The same where the limits leave nothing else.
    """
    for _ in range(TRIES):
        try:
            found = _drawn(layers, limits, rng)
        except ValueError:
            continue
        if found != layers and limits.allow(found) and max(found) < limits.count:
            return found
    return layers


def _drawn(layers: Layers, limits: Limits, rng: np.random.Generator) -> Layers:
    kind, depth = int(rng.integers(3)), len(layers)
    if kind == 2:
        run, side = int(rng.integers(len(runs_of(layers)))), int(rng.integers(2))
        return shifted(layers, run, side, int(rng.choice([-2, -1, 1, 2])))
    most = min(depth, limits.deepest - depth) if kind == 0 else depth - limits.shallowest
    if most < 1:
        raise ValueError("no room")
    size = int(rng.integers(1, most + 1))
    first = int(rng.integers(depth - size + 1))
    return (repeated if kind == 0 else dropped)(layers, first, first + size)


def as_recipe(order: Order, space: Space) -> Recipe:
    """The recipe over the study's models."""
    weights = dict(zip(space.experts, order.weights, strict=True))
    group = GroupMerge(layers=(0, len(order.layers)), method=METHOD, weights=weights)
    plain = order.layers == tuple(range(space.layer_count))
    return space.recipe((group,), () if plain else tuple(Slice(layers=run) for run in runs_of(order.layers)))


def read_order(recipe: Recipe, experts: Sequence[str], count: int) -> Order | None:
    """The order that a recipe is; None if its layers are not all the same task arithmetic, or experts give others.

    Weighted means whose weights add up to 1 are task arithmetic, too.

    Args:
        count: layers of the models.
    """
    first = recipe.groups[0]
    if recipe.overrides or any(part.sources for part in recipe.slices):
        return None
    if any(_merge(group) != _merge(first) for group in recipe.groups) or not _is_arithmetic(first):
        return None
    spans = [part.layers for part in recipe.slices] or [(0, count)]
    layers = tuple(layer for span in spans for layer in range(*span))
    return Order(layers, tuple(float(first.weights[name]) for name in experts))


def _merge(group: GroupMerge) -> tuple[str, Mapping[str, object], Mapping[str, float]]:
    return group.method, group.parameters, group.weights


def _is_arithmetic(group: GroupMerge) -> bool:
    row = CATALOG[group.method]
    known = {parameter.name: parameter.default for parameter in row.parameters}
    if any(value != known[name] for name, value in group.parameters.items()):
        return False
    return row.name == METHOD or (row.name == "linear" and abs(sum(group.weights.values()) - 1.0) < _ALIKE)
