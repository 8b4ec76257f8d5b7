"""What linear layers see behind the merged layers before them, beside what they see in each expert: for `pleas_pp`.

Each expert's texts go through the model twice, layer by layer: through the expert, where each of its matrices sees z,
and through the merge as far as it is built, where it sees x. Of both the mean products are taken, and from them the
matrix is merged, before the next one is looked at: queries, keys and values first, then the attention's output, then
what comes after it, so that every layer is fitted to what really reaches it. A head that is not tied to the embeddings
is the last layer; the last token counts, behind which a model says that it has ended.

Tensors, each behind its expert's fingerprint: `<fingerprint>/<matrix>::gram.0` E[x xᵀ] and `…::cross.0` E[z xᵀ],
float32 [in, in], in the blocks of an `inputs` artefact.
"""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from evaluation.artefacts.contract import Joint, Subject
from evaluation.artefacts.inputs import Products, gram_shapes
from evaluation.artefacts.modules import Layer, head_of, real_positions, watched
from evaluation.artefacts.stack import States, behind, called, inputs_by_layer, stack_of
from evaluation.artefacts.texts import Text
from merging.artefacts.measured import stored_name
from merging.artefacts.request import Request
from merging.artefacts.shelf import Growing
from merging.layers import Place
from merging.weightfiles import Shape

Both = tuple[States, States]  # of one batch: in its expert, and in the merge
Seen = Iterator[tuple[Tensor, Tensor]]
"""Of one input, batch by batch: in the expert and in the merge, [positions, in]."""


@dataclass
class Merged:
    """Measures all experts together while it builds the merge: a `Measurement`."""

    subject: Subject
    joint: Joint
    request: Request
    stack: list[nn.Module] = field(init=False)
    inputs: list[list[Layer]] = field(init=False)  # of each layer, in the order they are called
    head: Layer | None = field(init=False)
    experts: dict[str, str] = field(default_factory=dict)  # by fingerprint: of equal ones, the first is read

    def __post_init__(self) -> None:
        self.stack = stack_of(self.subject.model, self.joint, self.request.kind)
        self.head = head_of(self.subject)
        self.inputs = inputs_by_layer(self.subject, self.stack)
        models = self.joint.models
        for expert, fingerprint in zip(models.names, models.expert_fingerprints, strict=True):
            self.experts.setdefault(fingerprint, expert)

    @property
    def shapes(self) -> list[Shape]:
        """As `Measurement.shapes`."""
        return [
            (f"{fingerprint}/{stored_name(name, f'{kind}.{i}')}", torch.float32, shape)
            for layer in (*(one for layers in self.inputs for one in layers), *([self.head] if self.head else []))
            for fingerprint in self.experts
            for name in layer.names
            for kind in ("gram", "cross")
            for i, shape in enumerate(gram_shapes(layer.width, self._block))
        ]

    @property
    def need(self) -> int:
        """Bytes of one layer's sums and of one layer of all experts, and of all states."""
        size = next(self.subject.model.parameters()).element_size()
        sums = max((sum(map(self._bytes, layers)) for layers in self.inputs), default=0) * len(self.experts)
        sums += max((self._bytes(layer) for layers in self.inputs for layer in layers), default=0)  # those that run
        twins = max(sum(p.numel() for p in layer.parameters()) for layer in self.stack) * len(self.experts) * size
        width = max((layer.width for layers in self.inputs for layer in layers), default=0)
        return sums + twins + 2 * size * self._positions * width

    @property
    def rounds(self) -> int:
        """As `Measurement.rounds`."""
        return 1

    @torch.no_grad()
    def values(self) -> Iterator[tuple[str, Tensor]]:
        """As `Measurement.values`. The live model holds the merge's layers afterwards."""
        states = self._begin()
        for number, layers in enumerate(self.inputs):
            yield from self._layer(number, layers, states)
        if self.head:
            yield from self._head(self.head, states)

    def figures(self) -> Mapping[str, float | int]:
        """How many positions were seen, of all experts' texts."""
        return {"positions": self._positions}

    @property
    def _positions(self) -> int:
        return sum(len(text) for expert in self.experts.values() for text in self.joint.texts[expert])

    @property
    def _block(self) -> int:
        return int(self.request.setting("block"))

    def _bytes(self, layer: Layer) -> int:
        return 8 * sum(torch.Size(shape).numel() for shape in gram_shapes(layer.width, self._block))

    def _begin(self) -> dict[str, list[Both]]:
        """The states of all texts before the first layer."""
        first: dict[str, list[States]] = {}
        model = self.subject.model

        def begin(batch: Sequence[Text], found: list[States]) -> None:
            self.subject.beat()
            found.append(called(model, self.stack, batch, whole=True))

        for expert in self.experts.values():
            self.joint.write(expert, lambda place: place.layer == "before")
            own = first.setdefault(expert, [])
            texts = sorted(self.joint.texts[expert], key=len, reverse=True)
            self.subject.budget.run(texts, len, lambda batch, own=own: begin(batch, own))  # type: ignore[misc]
        self._build({}, lambda place: place.layer == "before")
        return {
            expert: [(own, called(model, self.stack, own.texts, whole=True)) for own in batches]
            for expert, batches in first.items()
        }

    def _layer(
        self, number: int, layers: Sequence[Layer], states: Mapping[str, list[Both]]
    ) -> Iterator[tuple[str, Tensor]]:
        """Measures and builds one layer, input by input; all states go through it."""
        here, live = (lambda place: place.layer == number), self.stack[number]
        twins = {}
        for expert in states:
            self.joint.write(expert, here)
            twins[expert] = copy.deepcopy(live)
        found: dict[str, Tensor] = {}
        self._build(found, here)
        for layer in layers:
            for fingerprint, expert in self.experts.items():
                found.update(
                    self._products(fingerprint, layer, self._seen(layer, number, twins[expert], states[expert]))
                )
            self._build(found, here)
        yield from found.items()
        for expert, batches in states.items():
            for own, merged in batches:
                self.subject.beat()
                own.hidden, merged.hidden = own.through(twins[expert], number), merged.through(live, number)

    def _seen(self, layer: Layer, number: int, twin: nn.Module, batches: Sequence[Both]) -> Seen:
        """One input of a layer in an expert's copy of it and in the merge."""
        live = self.stack[number]
        names = {id(module): name for name, module in live.named_modules()}
        own = Layer(tuple(twin.get_submodule(names[id(module)]) for module in layer.modules), layer.names, layer.width)
        for batch in batches:
            self.subject.beat()
            yield _looked(own, twin, batch[0], number), _looked(layer, live, batch[1], number)

    def _head(self, head: Layer, states: Mapping[str, list[Both]]) -> Iterator[tuple[str, Tensor]]:
        """Measures the head, behind the norm of each expert and of the merge."""

        def last(place: Place) -> bool:
            return place.layer == "after"

        for fingerprint, expert in self.experts.items():
            self.joint.write(expert, last)
            theirs = [self._behind(own) for own, _ in states[expert]]
            self._build({}, last)
            ours = (self._behind(merged) for _, merged in states[expert])
            yield from self._products(fingerprint, head, zip(theirs, ours, strict=True)).items()

    def _behind(self, states: States) -> Tensor:
        self.subject.beat()
        return _real(behind(self.subject.model, self.stack, states), states)

    def _products(self, fingerprint: str, layer: Layer, seen: Seen) -> dict[str, Tensor]:
        """The tensors of one expert and one input."""
        gram, cross = (Products(layer.width, self._block, self.subject.model.device) for _ in range(2))
        for theirs, ours in seen:
            gram.add(ours, ours)
            cross.add(theirs, ours)
        means = {"gram": gram.means(), "cross": cross.means()}  # one copy for all matrices that see this input
        return {
            f"{fingerprint}/{stored_name(name, f'{kind}.{i}')}": mean
            for name in layer.names
            for kind, parts in means.items()
            for i, mean in enumerate(parts)
        }

    def _build(self, found: Mapping[str, Tensor], where: Callable[[Place], bool]) -> None:
        """Builds a part of the merge from what is measured of it; the rest of it takes the mean."""
        growing = Growing()  # a new one each time: what was built of less is another merge
        for name, tensor in found.items():
            growing.add(name, tensor)
        with self.joint.resident.shelf.lending(self.request, growing):
            self.joint.build(where)
        growing.forget()


def measure_merged(subject: Subject, request: Request) -> Merged:
    """The measurement of a `merged inputs` artefact."""
    assert subject.joint is not None, "it is of all models together"
    return Merged(subject, subject.joint, request)


def _looked(layer: Layer, stack_layer: nn.Module, states: States, number: int) -> Tensor:
    """What one input of a layer is, [positions, in]."""
    found: list[Tensor] = []
    with watched([(layer, found.append)]) as show:
        show(states.lengths)
        states.through(stack_layer, number)
    return torch.cat(found)


def _real(values: Tensor, states: States) -> Tensor:
    """The states of what is no padding, [positions, hidden]."""
    real = real_positions(values, states.lengths)
    assert real is not None, "states are those of all positions"
    return values.reshape(-1, values.shape[-1])[real.to(values.device)]
