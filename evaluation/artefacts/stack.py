"""Texts on their way through a model's layers, one layer at a time: for what is measured while a merge is built."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from evaluation.artefacts.contract import Joint, Subject
from evaluation.artefacts.modules import Layer, shared_inputs
from evaluation.artefacts.passes import forward
from evaluation.artefacts.texts import Text
from merging.artefacts.request import OF_RECIPE, requests
from merging.catalog.declare import ArtefactKind
from merging.errors import InvalidRecipe

_METHODS: Mapping[ArtefactKind, tuple[str, str]] = {  # which reads the kind, and what needs no stack
    "propagated inputs": ("regmean_pp", "regmean"),
    "merged inputs": ("pleas_pp", "pleas"),
}


@dataclass
class States:
    """One batch of texts between two layers.

    Attributes:
        texts: of each row.
        lengths: positions of each row that are no padding.
        hidden: [rows, positions, hidden].
        calls: what each layer is called with beside the states.
    """

    texts: Sequence[Text]
    lengths: list[int]
    hidden: Tensor
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]]

    def through(self, layer: nn.Module, number: int) -> Tensor:
        """The states behind a layer."""
        args, kwargs = self.calls[number]
        found = layer(self.hidden, *args, **kwargs)
        return found[0] if isinstance(found, tuple) else found


def called(model: Any, stack: Sequence[nn.Module], texts: Sequence[Text], *, whole: bool = False) -> States:
    """One forward pass, of which what enters each layer is kept, but the states of the first alone.

    Args:
        whole: as for `forward`.
    """
    states: list[Tensor] = []
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def look(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        rest = dict(kwargs)
        hidden = args[0] if args else rest.pop("hidden_states")
        if not states:
            states.append(hidden)
        calls.append((args[1:], rest))

    handles = [layer.register_forward_pre_hook(look, with_kwargs=True) for layer in stack]
    try:
        forward(model, texts, whole=whole)
    finally:
        for handle in handles:
            handle.remove()
    return States(texts, [len(text) if whole else text.positions for text in texts], states[0], calls)


def behind(model: Any, stack: Sequence[nn.Module], states: States) -> Tensor:
    """What the model makes of states behind its last layer, [rows, positions, hidden]: the input of its head."""

    def instead(module: nn.Module, args: Any, output: Any) -> Any:
        return (states.hidden, *output[1:]) if isinstance(output, tuple) else states.hidden

    handle = stack[-1].register_forward_hook(instead)
    try:
        return forward(model, states.texts, whole=True)
    finally:
        handle.remove()


def stack_of(model: Any, joint: Joint, kind: ArtefactKind) -> list[nn.Module]:
    """The model's layers, in order.

    Raises:
        InvalidRecipe: the model has no single stack of layers, the recipe stacks them anew, or it has groups for which
            other things are to be measured: each would have to be merged before the other.
    """
    method, other = _METHODS[kind]
    kinds = [one.kind for one in requests(joint.recipe, joint.models) if one.kind in OF_RECIPE]
    if len(kinds) > 1:
        problem, remedy = "is measured with other settings in another group", "give all groups the same"
        if len(set(kinds)) > 1:
            problem = f"and {next(_METHODS[one][0] for one in kinds if one != kind)} would each be measured first"
            remedy = "use one of them in all groups"
        raise InvalidRecipe("method", method, problem, remedy)
    count = joint.models.layout.layer_count
    lists = [m for m in model.base_model.modules() if isinstance(m, nn.ModuleList) and len(m) == count]
    if joint.recipe.slices or not lists:
        problem = "goes through the layers of one stack in their order, and these have another"
        raise InvalidRecipe("method", method, problem, f"use {other}")
    return list(lists[0])


def inputs_by_layer(subject: Subject, stack: Sequence[nn.Module]) -> list[list[Layer]]:
    """What the linear layers inside each layer of the stack read, in the order they are called."""
    inside: dict[int, int] = {}
    for number, layer in enumerate(stack):
        for module in layer.modules():
            inside.setdefault(id(module), number)
    found: list[list[Layer]] = [[] for _ in stack]
    for one in shared_inputs(subject):
        if (place := inside.get(id(one.modules[0]))) is not None:
            found[place].append(one)
    return found
