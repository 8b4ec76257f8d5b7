"""The diagonal of a model's Fisher information: how much the likelihood of its answers hangs on each number.

F = E_x E_{y∼p(y|x)} (∂ log p(y|x) / ∂θ)² over sequences, log p(y|x) the sum over the answer's tokens (Matena & Raffel
2021, arXiv:2111.09832, equation 4). Each sequence's gradient is squared by itself: the square of a batch's gradient
has cross terms. With `labels: given`, y is the document's own answer (the empirical Fisher).
"""

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from evaluation.artefacts.contract import Subject
from evaluation.artefacts.gradients import tracked
from evaluation.artefacts.passes import rounds
from evaluation.artefacts.texts import Text, log_likelihoods
from merging.artefacts.request import Request
from merging.weightfiles import Shape


@dataclass
class Fisher:
    """Measures all floating-point tensors: a `Measurement`. Kept in bfloat16, which has float32's range.

    Args:
        drawn: whether answers are drawn from the model.
    """

    subject: Subject
    drawn: bool
    _totals: dict[str, float] = field(default_factory=lambda: {"sum": 0.0, "squares": 0.0, "count": 0})

    @property
    def shapes(self) -> list[Shape]:
        """As `Measurement.shapes`."""
        return [(name, torch.bfloat16, tuple(self.subject.tensors[name].shape)) for name in self._names]

    @property
    def need(self) -> int:
        """Bytes of the largest round's sums, and of the gradients beside them."""
        return max((sum(map(self._bytes, names)) for names in self._rounds()), default=0)

    @property
    def rounds(self) -> int:
        """As `Measurement.rounds`."""
        return len(self._rounds())

    def values(self) -> Iterator[tuple[str, Tensor]]:
        """As `Measurement.values`."""
        model = self.subject.model
        texts = [drawn(model, text) if self.drawn else text for text in self.subject.texts]
        for names in self._rounds():
            for name, total in self._squares(names, texts).items():
                mean = total.div_(len(texts))
                self._totals["sum"] += float(mean.sum(dtype=torch.float64))
                self._totals["squares"] += float(mean.double().square().sum())
                self._totals["count"] += mean.numel()
                yield name, mean

    def figures(self) -> Mapping[str, float | int]:
        """Mean and Euclidean norm over the whole model."""
        totals = self._totals
        mean = totals["sum"] / max(totals["count"], 1)
        return {"mean": mean, "norm": totals["squares"] ** 0.5, "sequences": len(self.subject.texts)}

    @property
    def _names(self) -> list[str]:
        return [name for name, tensor in self.subject.tensors.items() if tensor.is_floating_point()]

    def _bytes(self, name: str) -> int:
        tensor = self.subject.tensors[name]
        return tensor.numel() * (4 + tensor.element_size())

    def _rounds(self) -> list[list[str]]:
        return rounds(self._names, self._bytes, self.subject.room)

    def _squares(self, names: list[str], texts: list[Text]) -> dict[str, Tensor]:
        """Σ over the texts of the squared gradient of each tensor, float32."""
        tensors = {name: self.subject.tensors[name] for name in names}
        sums = {name: torch.zeros(tensor.shape, device=tensor.device) for name, tensor in tensors.items()}
        with tracked(self.subject.model, tensors) as gradients:
            for text in texts:
                self.subject.beat()
                log_likelihoods(self.subject.model, [text])[0].backward()
                for name, gradient in gradients():
                    sums[name].addcmul_(gradient.float(), gradient.float())
        return sums


def measure_fisher(subject: Subject, request: Request) -> Fisher:
    """The measurement of a `fisher` artefact."""
    return Fisher(subject, request.setting("labels") == "drawn")


@torch.no_grad()
def drawn(model: Any, text: Text) -> Text:
    """The text with an answer as long that the model draws itself, at temperature 1, keyed by the context."""
    generator = torch.Generator().manual_seed(zlib.crc32(repr(text.context).encode()))
    ids, cache, answer = torch.tensor([text.context], device=model.device), None, list[int]()
    for _ in text.answer:
        found = model(input_ids=ids, past_key_values=cache, use_cache=True)
        chances = found.logits[0, -1].float().softmax(-1).cpu()
        answer.append(int(torch.multinomial(chances, 1, generator=generator)))
        ids, cache = torch.tensor([answer[-1:]], device=model.device), found.past_key_values
    return Text(text.context, answer)
