"""What linear layers see of the same tokens in all experts: mean products of one expert's inputs with another's.

For every matrix and every two experts i, j: E[z_i z_jᵀ] over all positions of the texts, float32 [in, in], for wide
inputs in blocks along the diagonal as those of `inputs`. Of two products that are each other's transpose the one that
begins with the lesser fingerprint is kept: `<i>/<matrix>::with.<j>.0`. A head that is not tied to the embeddings counts
as a layer, and so does the last token, behind which a model says that it has ended.

To write an expert into the live model is dear, so the texts go through it in few large parts, and what was seen of a
part is held until all experts have seen it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from evaluation.artefacts.contract import Joint, Subject
from evaluation.artefacts.inputs import Products, gram_shapes
from evaluation.artefacts.modules import Layer, head_of, inputs_of, shared_inputs
from evaluation.artefacts.passes import rounds
from evaluation.artefacts.texts import Text
from merging.artefacts.measured import stored_name
from merging.artefacts.request import Request
from merging.weightfiles import Shape


@dataclass
class Common:
    """Measures all experts together: a `Measurement`. Half of the room is for sums, half for inputs that are held."""

    subject: Subject
    joint: Joint
    block: int
    layers: list[Layer] = field(init=False)
    experts: dict[str, str] = field(default_factory=dict)  # by fingerprint, ascending: of equal ones, the first

    def __post_init__(self) -> None:
        head = head_of(self.subject)
        self.layers = [*shared_inputs(self.subject), *([head] if head else [])]
        models = self.joint.models
        for fingerprint, expert in sorted(zip(models.expert_fingerprints, models.names, strict=True)):
            self.experts.setdefault(fingerprint, expert)

    @property
    def shapes(self) -> list[Shape]:
        """As `Measurement.shapes`."""
        return [
            (f"{ours}/{stored_name(name, f'with.{theirs}.{i}')}", torch.float32, shape)
            for layer in self.layers
            for name in layer.names
            for ours, theirs in self._pairs
            for i, shape in enumerate(gram_shapes(layer.width, self.block))
        ]

    @property
    def need(self) -> int:
        """Bytes of the largest round's sums and of what is held beside them."""
        return max((sum(map(self._bytes, each)) + self._held(each) for each in self._rounds), default=0)

    @property
    def rounds(self) -> int:
        """As `Measurement.rounds`."""
        return len(self._rounds)

    @torch.no_grad()
    def values(self) -> Iterator[tuple[str, Tensor]]:
        """As `Measurement.values`. The live model holds an expert afterwards."""
        for layers in self._rounds:
            for layer, sums in zip(layers, self._sums(layers), strict=True):
                for name in layer.names:
                    for (ours, theirs), products in sums.items():
                        for i, mean in enumerate(products.means()):
                            yield f"{ours}/{stored_name(name, f'with.{theirs}.{i}')}", mean

    def figures(self) -> Mapping[str, float | int]:
        """How many positions were seen."""
        return {"positions": sum(map(len, self.subject.texts))}

    @cached_property
    def _pairs(self) -> list[tuple[str, str]]:
        names = list(self.experts)
        return [(ours, theirs) for i, ours in enumerate(names) for theirs in names[i:]]

    @cached_property
    def _rounds(self) -> list[list[Layer]]:
        return rounds(self.layers, self._bytes, self.subject.room // 2)

    def _bytes(self, layer: Layer) -> int:
        sizes = (torch.Size(shape).numel() for shape in gram_shapes(layer.width, self.block))
        return 4 * len(self._pairs) * sum(sizes)

    def _position(self, layers: Sequence[Layer]) -> int:
        """Bytes of one position's inputs in all experts."""
        size = next(self.subject.model.parameters()).element_size()
        return size * len(self.experts) * sum(layer.width for layer in layers)

    def _held(self, layers: Sequence[Layer]) -> int:
        return max(sum(map(len, part)) for part in self._parts(layers)) * self._position(layers)

    def _parts(self, layers: Sequence[Layer]) -> list[list[Text]]:
        """The texts, longest first, in parts whose inputs fit half of the room."""
        each = self._position(layers)
        ordered = sorted(self.subject.texts, key=len, reverse=True)
        return rounds(ordered, lambda text: len(text) * each, self.subject.room // 2)

    def _sums(self, layers: Sequence[Layer]) -> list[dict[tuple[str, str], Products]]:
        device = self.subject.model.device
        found = [{pair: Products(layer.width, self.block, device) for pair in self._pairs} for layer in layers]
        for part in self._parts(layers):
            seen = {fingerprint: self._seen(expert, layers, part) for fingerprint, expert in self.experts.items()}
            for number, sums in enumerate(found):
                for (ours, theirs), products in sums.items():
                    products.add(seen[ours][number], seen[theirs][number])
        return found

    def _seen(self, expert: str, layers: Sequence[Layer], part: Sequence[Text]) -> list[Tensor]:
        """What an expert's layers see of a part of the texts, in the texts' order whatever fits a batch."""
        self.joint.write(expert, lambda place: True)
        found: list[list[Tensor]] = []

        def read(batch: Sequence[Text]) -> None:
            self.subject.beat()
            found.append(inputs_of(self.subject.model, layers, batch))

        self.subject.budget.run(part, len, read)
        return [torch.cat(seen) for seen in zip(*found, strict=True)]


def measure_common(subject: Subject, request: Request) -> Common:
    """The measurement of a `common inputs` artefact."""
    assert subject.joint is not None, "it is of all models together"
    return Common(subject, subject.joint, request.setting("block"))
