"""What each expert's linear layers see behind the merged layers before them: the inputs of RegMean++.

Layer by layer: every expert's own layer reads the states that its texts have behind the merged prefix, and the mean
products of what its matrices see are taken; from them the layer is merged, and all states go on through the merged one
(arXiv:2508.03121, section 3). The states of all texts are kept between layers, so each layer of each model is computed
three times, whatever the depth.

Tensors are those of an `inputs` artefact, each behind its expert's fingerprint: `<fingerprint>/<matrix>::gram.0`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from evaluation.artefacts.contract import Joint, Subject
from evaluation.artefacts.inputs import Sums, gram_shapes
from evaluation.artefacts.modules import Layer, watched
from evaluation.artefacts.stack import States, called, inputs_by_layer, stack_of
from evaluation.artefacts.texts import Text
from merging.artefacts.measured import stored_name
from merging.artefacts.request import Request
from merging.artefacts.shelf import Growing
from merging.weightfiles import Shape


@dataclass
class Propagated:
    """Measures all experts together while it builds the merge: a `Measurement`."""

    subject: Subject
    joint: Joint
    request: Request
    stack: list[nn.Module] = field(init=False)
    inputs: list[list[Layer]] = field(init=False)
    experts: dict[str, str] = field(default_factory=dict)  # by fingerprint: of equal ones, the first is read
    _positions: int = 0

    def __post_init__(self) -> None:
        self.stack = stack_of(self.subject.model, self.joint, self.request.kind)
        self.inputs = inputs_by_layer(self.subject, self.stack)
        models = self.joint.models
        for expert, fingerprint in zip(models.names, models.expert_fingerprints, strict=True):
            self.experts.setdefault(fingerprint, expert)

    @property
    def shapes(self) -> list[Shape]:
        """As `Measurement.shapes`."""
        return [
            (f"{fingerprint}/{stored_name(name, f'gram.{i}')}", torch.float32, shape)
            for layers in self.inputs
            for fingerprint in self.experts
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
        return per * len(self.experts) + 4 * positions * width

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
            states = {expert: self._begin(joint.texts[expert]) for expert in self.experts.values()}
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
        self, number: int, layers: Sequence[Layer], states: Mapping[str, list[States]]
    ) -> Iterator[tuple[str, Tensor]]:
        """The products that one layer of every expert sees, with the names they are stored under."""
        device = self.subject.model.device
        for fingerprint, expert in self.experts.items():
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

    def _begin(self, texts: Sequence[Text]) -> list[States]:
        """The states of all texts before the first layer."""
        found = []

        def begin(batch: Sequence[Text]) -> None:
            self.subject.beat()
            found.append(called(self.subject.model, self.stack, batch))

        self.subject.budget.run(sorted(texts, key=len, reverse=True), lambda text: text.positions, begin)
        return found


def measure_propagated(subject: Subject, request: Request) -> Propagated:
    """The measurement of a `propagated inputs` artefact."""
    assert subject.joint is not None, "it is of all models together"
    return Propagated(subject, subject.joint, request)
