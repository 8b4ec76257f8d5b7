"""Adapters applied one after the other, each trained on top of what those before it had made (arXiv:2401.04151).

For plain LoRAs the order does not matter: their sum is one LoRA. It matters where rows are brought to a norm (DoRA)
and where a tensor is replaced.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from merging.adapters.opening import Adapter
from merging.checkpoint import Checkpoint
from merging.codecs.contract import Numbers, Packed
from merging.codecs.lowrank import LowRank
from merging.codecs.whole import Whole


@dataclass(frozen=True, eq=False)
class Chain:
    """θ ← step_k(θ), k = 1 … n: what several adapters in order make of one tensor.

    Attributes:
        steps: two or more, of one shape, in the order of their application.
    """

    steps: tuple[Packed, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the expert's tensor."""
        return self.steps[0].shape

    @property
    def payload(self) -> Mapping[str, Tensor]:
        """The tensors of every step, under `<step>.<name>`."""
        return {f"{i}.{name}": tensor for i, step in enumerate(self.steps) for name, tensor in step.payload.items()}

    @property
    def numbers(self) -> Numbers:
        """The numbers of every step, under `<step>.<name>`."""
        return {f"{i}.{name}": number for i, step in enumerate(self.steps) for name, number in step.numbers.items()}

    def expert(self, base: Tensor) -> Tensor:
        """The tensor after the last step, float32."""
        for step in self.steps:
            base = step.expert(base)
        return base

    def moved(self, move: Callable[[Tensor], Tensor]) -> "Chain":
        """The same with its payload elsewhere."""
        return Chain(tuple(step.moved(move) for step in self.steps))


def chained(steps: Sequence[Packed]) -> Packed:
    """Several steps as one, in as little as can be: neighbouring LoRAs as one, nothing before what replaces a tensor.

    Args:
        steps: one or more, of one shape, first applied first.

    Raises:
        ValueError: no steps, or of different shapes.
    """
    if len({step.shape for step in steps}) != 1:
        raise ValueError(f"steps have the shapes {sorted({step.shape for step in steps})}: one is needed")
    found: list[Packed] = []
    for step in steps:
        last = found[-1] if found else None
        if isinstance(step, Whole):
            found = [step]
        elif isinstance(step, LowRank) and isinstance(last, LowRank) and step.transposed == last.transposed:
            found[-1] = LowRank(torch.cat([last.up, step.up], 1), torch.cat([last.down, step.down]), step.transposed)
        else:
            found.append(step)
    return found[0] if len(found) == 1 else Chain(tuple(found))


def chain(adapters: Sequence[Mapping[str, Packed]]) -> dict[str, Packed]:
    """What adapters in order make of the tensors that any of them changes, by name.

    Args:
        adapters: `Adapter.deltas` of each, first applied first.
    """
    names = sorted({name for deltas in adapters for name in deltas})
    return {name: chained([deltas[name] for deltas in adapters if name in deltas]) for name in names}


def open_chain(paths: Sequence[Path], base: Checkpoint, keys: Sequence[str]) -> list[Adapter]:
    """Adapters of which each was trained on the base as those before it had changed it.

    Args:
        paths: their folders, first applied first.
        base: what the first was trained on.
        keys: where each is named, for messages.

    Raises:
        InvalidModel: one cannot be opened.
    """
    opened: list[Adapter] = []
    for path, key in zip(paths, keys, strict=True):
        changed = {name for adapter in opened for name in adapter.names}
        opened.append(Adapter(path, base, key, changed))
    return opened
