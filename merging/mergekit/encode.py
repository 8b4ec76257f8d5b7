"""A merge for each tensor, written as a recipe's groups and overrides. No torch here."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal

from merging.arrangement import Arrangement
from merging.layers import Module
from merging.mergekit.cover import cover, inside, suffix
from merging.mergekit.translate import Numbers
from merging.recipe import GroupMerge, Override

_MODULES: tuple[Module, ...] = ("attention", "mlp", "other")
_SIDES: tuple[Literal["before", "after"], ...] = ("before", "after")


def encode(
    arrangement: Arrangement, numbers: Mapping[str, Numbers], texts: Sequence[str]
) -> tuple[tuple[GroupMerge, ...], tuple[Override, ...]]:
    """Groups of layers that share a merge, and what stands out of them.

    Args:
        arrangement: the result's tensors.
        numbers: the merge of each, by name.
        texts: parts of names that are likely to tell tensors apart.
    """
    groups: list[GroupMerge] = []
    overrides: list[Override] = []
    layers = _by_layer(arrangement)
    usual: dict[Module, Numbers] = {}
    beside: list[Numbers] = []  # the merges of `other` at the ends: what stands beside the layers shares them
    for first, end in _runs(layers, numbers, arrangement.layer_count):
        names = [name for layer in range(first, end) for name in layers.get(layer, ())]
        modules = {name: arrangement.parts[name].place.module for name in names}
        usual = _usual(modules, numbers, usual)
        beside.append(usual["other"])
        groups += _groups((first, end), usual)
        found = cover({n: numbers[n] for n in names}, {n: usual[modules[n]] for n in names}, [*texts, *inside(names)])
        overrides += [_override(text, value, layers=(first, end)) for text, value in found]
    for side, neighbour in zip(_SIDES, (beside[0], beside[-1]), strict=True):
        names = sorted(name for name, part in arrangement.parts.items() if part.place.layer == side)
        overrides += _edge(side, {name: numbers[name] for name in names}, neighbour, texts)
    return tuple(groups), tuple(overrides)


def _by_layer(arrangement: Arrangement) -> dict[int, list[str]]:
    layers: dict[int, list[str]] = {}
    for name, part in arrangement.parts.items():
        if isinstance(part.place.layer, int):
            layers.setdefault(part.place.layer, []).append(name)
    return layers


def _runs(layers: Mapping[int, Sequence[str]], numbers: Mapping[str, Numbers], count: int) -> list[tuple[int, int]]:
    """Ranges of layers whose tensors are merged alike, name by name."""
    alike = [{suffix(name): numbers[name] for name in layers.get(layer, ())} for layer in range(count)]
    starts = [layer for layer in range(count) if layer == 0 or alike[layer] != alike[layer - 1]]
    return list(zip(starts, [*starts[1:], count], strict=True))


def _usual(
    modules: Mapping[str, Module], numbers: Mapping[str, Numbers], before: Mapping[Module, Numbers]
) -> dict[Module, Numbers]:
    """The commonest merge of each module; of one that these layers lack, that of all, or the last there was."""
    found: dict[Module, Numbers] = {}
    everything = Counter(numbers[name] for name in modules)
    for module in _MODULES:
        counted = Counter(numbers[name] for name in modules if modules[name] == module) or everything
        found[module] = counted.most_common(1)[0][0] if counted else before[module]
    return found


def _groups(layers: tuple[int, int], usual: Mapping[Module, Numbers]) -> list[GroupMerge]:
    if len(set(usual.values())) == 1:
        return [GroupMerge.model_validate({"layers": layers, **usual["other"].fields()})]
    return [
        GroupMerge.model_validate({"layers": layers, "modules": module, **usual[module].fields()})
        for module in _MODULES
    ]


def _override(text: str, numbers: Numbers, **where: object) -> Override:
    return Override.model_validate({"contains": text, **where, **numbers.fields()})


def _edge(
    side: Literal["before", "after"], wanted: Mapping[str, Numbers], neighbour: Numbers, texts: Sequence[str]
) -> list[Override]:
    """What stands on one side of the layers, where it is merged otherwise than the layer beside it."""
    if not wanted:
        return []
    common = neighbour if neighbour in wanted.values() else Counter(wanted.values()).most_common(1)[0][0]
    found = [_override(text, value, edge=side) for text, value in cover(wanted, dict.fromkeys(wanted, common), texts)]
    return found if common == neighbour else [*found, _override("", common, edge=side)]
