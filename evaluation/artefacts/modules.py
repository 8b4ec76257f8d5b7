"""The live model's linear layers: which matrix of the checkpoint each is, which share an input, and watching them.

A linear layer is any module whose `weight` is a matrix of the checkpoint, routers among them.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from evaluation.artefacts.contract import Subject
from evaluation.artefacts.passes import forward
from evaluation.artefacts.texts import Text
from merging.roles import role


@dataclass(frozen=True)
class Layer:
    """One input that some matrices share.

    Attributes:
        modules: what computes with one of them; several, where the model uses it in several places.
        names: checkpoint names of the matrices.
        width: channels of the input.
    """

    modules: tuple[nn.Module, ...]
    names: tuple[str, ...]
    width: int


@torch.no_grad()
def shared_inputs(subject: Subject) -> list[Layer]:
    """The linear layers that see all positions, those of one input together, in the order they are called."""
    modules = _linear(subject)
    calls: dict[str, list[Tensor]] = {}  # as long as inputs live, no other tensor has the identity of one
    text = min(subject.texts, key=len)
    lengths = [text.positions] * 2  # two rows: what is computed once for all of them is no row's

    def looking(name: str) -> Callable[[Tensor], None]:
        return lambda values: calls.setdefault(name, []).append(values)

    with _hooked((module, looking(name)) for name, found in modules.items() for module in found):
        forward(subject.model, [text, text])
    whole = {name for name, seen in calls.items() if all(real_positions(x, lengths) is not None for x in seen)}
    routed = {_siblings(name) for name in modules if name not in whole}
    inputs: dict[tuple[int, ...], list[str]] = {}
    for name, seen in calls.items():
        if _siblings(name) not in routed:
            inputs.setdefault(tuple(map(id, seen)), []).append(name)
    return [Layer(tuple(modules[each[0]]), tuple(each), calls[each[0]][0].shape[-1]) for each in inputs.values()]


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

    with _hooked((module, taking(take)) for layer, take in layers for module in layer.modules):
        yield lambda found: lengths.__setitem__(slice(None), list(found))


@contextmanager
def _hooked(modules: Iterable[tuple[nn.Module, Callable[[Tensor], None]]]) -> Iterator[None]:
    """Each module's function is called with its input, before the module is."""

    def hook(look: Callable[[Tensor], None]) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        return lambda module, args: look(args[0]) if args else None

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


def head_of(subject: Subject) -> Layer | None:
    """The head, as a layer that reads what `forward` gives; None where it is tied to the embeddings, or has no name."""
    head, embeddings = subject.model.get_output_embeddings(), subject.model.get_input_embeddings()
    if head is None or head.weight is embeddings.weight:
        return None
    weight = head.weight
    names = [n for n, t in subject.tensors.items() if (t.data_ptr(), t.shape) == (weight.data_ptr(), weight.shape)]
    return Layer((head,), tuple(names), weight.shape[1]) if names else None


@torch.no_grad()
def inputs_of(model: Any, layers: Sequence[Layer], texts: Sequence[Text]) -> list[Tensor]:
    """What each of the layers, the head among them, sees of the texts, the last tokens too: [positions, in] each."""
    found: list[list[Tensor]] = [[] for _ in layers]
    lengths = [len(text) for text in texts]
    with watched((layer, seen.append) for layer, seen in zip(layers, found, strict=True)) as show:
        show(lengths)
        states = forward(model, texts, whole=True)
    head = model.get_output_embeddings()
    for layer, seen in zip(layers, found, strict=True):
        if layer.modules[0] is head:
            real = real_positions(states, lengths)
            assert real is not None, "its states are those of all positions"
            seen.append(states.reshape(-1, states.shape[-1])[real.to(states.device)])
    return [torch.cat(seen) for seen in found]


def _linear(subject: Subject) -> dict[str, list[nn.Module]]:
    """The modules whose weight is a matrix of the checkpoint, by its name."""
    config = subject.model.config.to_dict()
    names = {(t.data_ptr(), t.shape): n for n, t in subject.tensors.items() if role(n, t.shape, config) == "matrix"}
    found: dict[str, list[nn.Module]] = {}
    for module in subject.model.modules():
        weight = dict(module.named_parameters(recurse=False)).get("weight")
        name = None if weight is None else names.get((weight.data_ptr(), weight.shape))
        if name is not None:
            found.setdefault(name, []).append(module)
    return found


def _siblings(name: str) -> tuple[str, ...]:
    """What a matrix's name has in common with those that differ in a number inside their layer (experts).

    By chance one of them may get all positions of a text; if any other does not, none is sure to get them always.
    """
    first, *rest = re.split(r"(?<=\.)(\d+)(?=\.)", name)
    return (first, *rest[:1], *rest[1::2])
