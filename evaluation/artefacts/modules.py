"""The live model's linear layers: which matrix of the checkpoint each is, which share an input, and watching them."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from evaluation.artefacts.contract import Subject
from evaluation.artefacts.passes import forward
from merging.roles import role


@dataclass(frozen=True)
class Layer:
    """One input that some matrices share.

    Attributes:
        module: the one of them that is called first.
        names: checkpoint names of the matrices.
        width: channels of the input.
    """

    module: nn.Module
    names: tuple[str, ...]
    width: int


@torch.no_grad()
def shared_inputs(subject: Subject) -> list[Layer]:
    """The linear layers that see all positions, those of one input together, in the order they are called."""
    seen: dict[int, list[tuple[str, nn.Module]]] = {}
    kept: list[Tensor] = []  # as long as they live, no other tensor has their identity
    text = subject.texts[0]
    lengths = [len(text) - 1] * 2  # two rows: a router may send them to different experts

    def looking(name: str, module: nn.Module) -> Callable[[Tensor], None]:
        def look(values: Tensor) -> None:
            kept.append(values)
            if real_positions(values, lengths) is not None:
                seen.setdefault(id(values), []).append((name, module))

        return look

    with _hooked((module, looking(name, module)) for name, module in _linear(subject)):
        forward(subject.model, [text, text])
    return [Layer(each[0][1], tuple(name for name, _ in each), _width(each[0][1])) for each in seen.values()]


@contextmanager
def watched(layers: Iterable[tuple[Layer, Callable[[Tensor], None]]]) -> Iterator[Callable[[Sequence[int]], None]]:
    """Gives each layer's inputs [positions, in] without padding to its function.

    Yields:
        What is told the rows' lengths before each pass.
    """
    lengths: list[int] = []

    def taking(take: Callable[[Tensor], None]) -> Callable[[Tensor], None]:
        def look(values: Tensor) -> None:
            real = real_positions(values, lengths)
            if real is None:
                raise RuntimeError(f"a layer that saw all positions now sees {list(values.shape)}")
            take(values.reshape(-1, values.shape[-1])[real.to(values.device)])

        return look

    with _hooked((layer.module, taking(take)) for layer, take in layers):
        yield lambda found: lengths.__setitem__(slice(None), list(found))


@contextmanager
def _hooked(modules: Iterable[tuple[nn.Module, Callable[[Tensor], None]]]) -> Iterator[None]:
    """Each module's function is called with its input, before the module is."""

    def hook(look: Callable[[Tensor], None]) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        return lambda module, args: look(args[0])

    handles = [module.register_forward_pre_hook(hook(look)) for module, look in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def real_positions(values: Tensor, lengths: Sequence[int]) -> Tensor | None:
    """Which of the flattened positions are no padding; None if the values are not those of all positions."""
    rows, width = len(lengths), max(lengths)
    if values.shape[:-1] not in ((rows, width), (rows * width,)):
        return None
    return torch.cat([torch.arange(length) + i * width for i, length in enumerate(lengths)])


def _linear(subject: Subject) -> list[tuple[str, nn.Module]]:
    """The modules whose weight is a matrix of the checkpoint, with its name."""
    from transformers.pytorch_utils import Conv1D

    config = subject.model.config.to_dict()
    names = {(t.data_ptr(), t.shape): n for n, t in subject.tensors.items() if role(n, t.shape, config) == "matrix"}
    modules = [module for module in subject.model.modules() if isinstance(module, nn.Linear | Conv1D)]
    placed = [(names.get((module.weight.data_ptr(), module.weight.shape)), module) for module in modules]
    return [(name, module) for name, module in placed if name is not None]


def _width(module: Any) -> int:
    weight: Tensor = module.weight
    return weight.shape[1] if isinstance(module, nn.Linear) else weight.shape[0]
