"""What each expert's linear layers see behind the merged layers before them: the inputs of RegMean++.

Layer by layer: every expert's own layer reads the states that its texts have behind the merged prefix, and the mean
products of what its matrices see are taken; from them the layer is merged, and all states go on through the merged one
(arXiv:2508.03121, section 3). The states of all texts are kept between layers, so each layer of each model is computed
three times, whatever the depth.

Tensors are those of an `inputs` artefact, each behind its expert's fingerprint: `<fingerprint>/<matrix>::gram.0`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from evaluation.artefacts.contract import Joint, Subject
from evaluation.artefacts.inputs import Sums, gram_shapes
from evaluation.artefacts.modules import Layer, shared_inputs, watched
from evaluation.artefacts.passes import forward
from evaluation.artefacts.texts import Text
from merging.artefacts.measured import stored_name
from merging.artefacts.request import Request
from merging.artefacts.shelf import Growing
from merging.errors import InvalidRecipe
from merging.weightfiles import Shape


@dataclass
class _States:
    """One batch of one expert's texts, on its way through the layers.

    Attributes:
        lengths: positions of each row that are no padding.
        hidden: [rows, positions, hidden].
        calls: what each layer is called with beside the states.
    """

    lengths: list[int]
    hidden: Tensor
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]]

    def through(self, layer: nn.Module, number: int) -> Tensor:
        """The states behind a layer."""
        args, kwargs = self.calls[number]
        found = layer(self.hidden, *args, **kwargs)
        return found[0] if isinstance(found, tuple) else found


@dataclass
class Propagated:
    """Measures all experts together while it builds the merge: a `Measurement`."""

    subject: Subject
    joint: Joint
    request: Request
    stack: list[nn.Module] = field(init=False)
    inputs: list[list[Layer]] = field(init=False)
    _positions: int = 0

    def __post_init__(self) -> None:
        self.stack = _stack(self.subject.model, self.joint)
        inside = [{id(module) for module in layer.modules()} for layer in self.stack]
        every = shared_inputs(self.subject)
        self.inputs = [[one for one in every if id(one.module) in modules] for modules in inside]

    @property
    def shapes(self) -> list[Shape]:
        """As `Measurement.shapes`."""
        return [
            (f"{fingerprint}/{stored_name(name, f'gram.{i}')}", torch.float32, shape)
            for layers in self.inputs
            for fingerprint in self.joint.models.expert_fingerprints
            for layer in layers
            for name in layer.names
            for i, shape in enumerate(gram_shapes(layer.width, self._block))
        ]

    @property
    def need(self) -> int:
        """Bytes of one layer's sums for all experts, and of all states."""
        width = max((layer.width for layers in self.inputs for layer in layers), default=0)
        per = max((sum(self._bytes(layer) for layer in layers) for layers in self.inputs), default=0)
        positions = sum(len(text) for texts in self.joint.texts.values() for text in texts)
        return per * len(self.joint.models.names) + 4 * positions * width

    @property
    def rounds(self) -> int:
        """As `Measurement.rounds`."""
        return 1

    @torch.no_grad()
    def values(self) -> Iterator[tuple[str, Tensor]]:
        """As `Measurement.values`. The live model holds the merge's layers afterwards, and the base's head."""
        growing, joint = Growing(), self.joint
        with joint.resident.shelf.lending(self.request, growing):
            joint.build(lambda place: place.layer == "before")
            states = {expert: self._begin(texts) for expert, texts in joint.texts.items()}
            for number, layers in enumerate(self.inputs):
                found = list(self._grams(number, layers, states))
                for name, gram in found:
                    growing.add(name, gram)
                yield from found
                joint.build(lambda place, number=number: place.layer == number)  # type: ignore[misc]
                for batches in states.values():
                    for batch in batches:
                        self.subject.beat()
                        batch.hidden = batch.through(self.stack[number], number)
                growing.forget()

    def figures(self) -> Mapping[str, float | int]:
        """How many positions were seen, of all experts' texts."""
        return {"positions": self._positions}

    @property
    def _block(self) -> int:
        return int(self.request.setting("block"))

    def _bytes(self, layer: Layer) -> int:
        return 4 * sum(torch.Size(shape).numel() for shape in gram_shapes(layer.width, self._block))

    def _grams(
        self, number: int, layers: Sequence[Layer], states: Mapping[str, list[_States]]
    ) -> Iterator[tuple[str, Tensor]]:
        """The products that one layer of every expert sees, with the names they are stored under."""
        device = self.subject.model.device
        for expert, fingerprint in zip(self.joint.models.names, self.joint.models.expert_fingerprints, strict=True):
            self.joint.write(expert, lambda place: place.layer == number)
            sums = [Sums(layer.width, self._block, device) for layer in layers]
            with watched((layer, one.add) for layer, one in zip(layers, sums, strict=True)) as show:
                for batch in states[expert]:
                    self.subject.beat()
                    show(batch.lengths)
                    batch.through(self.stack[number], number)
            self._positions += sums[0].rows if sums and not number else 0
            for layer, one in zip(layers, sums, strict=True):
                grams = one.means()[:-1]
                for name in layer.names:
                    for i, gram in enumerate(grams):
                        yield f"{fingerprint}/{stored_name(name, f'gram.{i}')}", gram

    def _begin(self, texts: Sequence[Text]) -> list[_States]:
        """The states of all texts before the first layer."""
        found = []
        for batch in self.subject.budget.batches(sorted(texts, key=len, reverse=True), len):
            self.subject.beat()
            found.append(_called(self.subject.model, self.stack, batch))
        return found


def measure_propagated(subject: Subject, request: Request) -> Propagated:
    """The measurement of a `propagated inputs` artefact."""
    assert subject.joint is not None, "it is of all models together"
    return Propagated(subject, subject.joint, request)


def _called(model: Any, stack: Sequence[nn.Module], texts: Sequence[Text]) -> _States:
    """One forward pass, of which what enters each layer is kept, but the states of the first alone."""
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
        forward(model, texts)
    finally:
        for handle in handles:
            handle.remove()
    return _States([len(text) - 1 for text in texts], states[0], calls)


def _stack(model: Any, joint: Joint) -> list[nn.Module]:
    """The model's layers, in order.

    Raises:
        InvalidRecipe: the model has no single stack of layers, or the recipe stacks them anew.
    """
    count = joint.models.layout.layer_count
    lists = [m for m in model.base_model.modules() if isinstance(m, nn.ModuleList) and len(m) == count]
    if joint.recipe.slices or not lists:
        problem = "goes through the layers of one stack in their order, and these have another"
        raise InvalidRecipe("method", "regmean_pp", problem, "use regmean")
    return list(lists[0])
