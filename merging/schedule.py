"""Which tensors share coefficients: layers cut into ranges, ranges split by module or not. No torch here."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from merging.arrangement import Arrangement, Part
from merging.errors import InvalidStudy
from merging.layers import Layer
from merging.recipe import Modules, Override, Recipe

_SPLIT: tuple[Modules, ...] = ("attention", "mlp", "other")


@dataclass(frozen=True)
class GroupKey:
    """The place of one group: what `GroupMerge` says in `layers` and `modules`."""

    layers: tuple[int, int]
    modules: Modules


def ranges(layer_count: int, layers: int | Literal["each"]) -> list[tuple[int, int]]:
    """Contiguous half-open ranges that cover all layers; their lengths differ by one at most, longer ones first.

    Args:
        layer_count: how many layers the model has.
        layers: how many ranges, or one for each layer.

    Raises:
        InvalidStudy: fewer than one range, or more ranges than layers.
    """
    count = layer_count if layers == "each" else layers
    if not 1 <= count <= layer_count:
        problem = f"ranges cannot be cut from {layer_count} layers"
        raise InvalidStudy("space.layers", layers, problem, f'use 1 to {layer_count}, or "each"')
    short, longer = divmod(layer_count, count)
    ends = [(i + 1) * short + min(i + 1, longer) for i in range(count)]
    return list(zip([0, *ends[:-1]], ends, strict=True))


def group_keys(
    layer_count: int, layers: int | Literal["each"], modules: Literal["together", "split"]
) -> tuple[GroupKey, ...]:
    """Every group of a search space, in the order of the layers.

    Raises:
        InvalidStudy: the layers cannot be cut into that many ranges.
    """
    kinds: tuple[Modules, ...] = _SPLIT if modules == "split" else ("all",)
    return tuple(GroupKey(span, kind) for span in ranges(layer_count, layers) for kind in kinds)


def assign(recipe: Recipe, arrangement: Arrangement) -> Mapping[str, int]:
    """Which merge makes each tensor: an index into `(*recipe.groups, *recipe.overrides)`."""
    index: dict[tuple[int, str], int] = {}
    for number, group in enumerate(recipe.groups):
        for layer in range(*group.layers):
            for kind in _SPLIT if group.modules == "all" else (group.modules,):
                index[layer, kind] = number
    last = arrangement.layer_count - 1
    found = {}
    for name, part in arrangement.parts.items():
        exception = next((i for i, o in enumerate(recipe.overrides) if _fits(o, part)), None)
        if exception is not None:
            found[name] = len(recipe.groups) + exception
        else:
            found[name] = index[_layer(part.place.layer, last), part.place.module]
    return found


def _fits(override: Override, part: Part) -> bool:
    layer = part.place.layer
    if override.contains not in part.name:
        return False
    if override.edge is not None:
        return layer == override.edge
    if override.layers is None:
        return True
    return isinstance(layer, int) and override.layers[0] <= layer < override.layers[1]


def _layer(layer: Layer, last: int) -> int:
    """The first range also holds what stands before the layers, the last what stands after."""
    if isinstance(layer, int):
        return layer
    return 0 if layer == "before" else last
