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

from evaluation.artefacts.contract import Beat, Subject
from evaluation.artefacts.gradients import owners, tracked
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
    _together: list[list[str]] = field(init=False)
    _totals: dict[str, float] = field(default_factory=lambda: {"sum": 0.0, "squares": 0.0, "count": 0})

    def __post_init__(self) -> None:
        tensors = {name: tensor for name, tensor in self.subject.tensors.items() if tensor.is_floating_point()}
        found: dict[int, list[str]] = {}  # by parameter: the gradient of a part of it takes the memory of all of it
        for name, owner in owners(self.subject.model, tensors).items():
            found.setdefault(id(tensors[name] if owner is None else owner), []).append(name)
        self._together = list(found.values())

    @property
    def shapes(self) -> list[Shape]:
        """As `Measurement.shapes`."""
        names = (name for together in self._together for name in together)
        return [(name, torch.bfloat16, tuple(self.subject.tensors[name].shape)) for name in names]

    @property
    def need(self) -> int:
        """Bytes of the largest round's sums, and of the gradients beside them."""
        return max(map(self._bytes, self._rounds()), default=0)

    @property
    def rounds(self) -> int:
        """As `Measurement.rounds`."""
        return len(self._rounds())

    def values(self) -> Iterator[tuple[str, Tensor]]:
        """As `Measurement.values`."""
        model = self.subject.model
        texts = [drawn(model, text, self.subject.beat) if self.drawn else text for text in self.subject.texts]
        for names in self._rounds():
            for name, total in self._squares(names, texts).items():
                mean = total.div_(len(texts))
                self._totals["sum"] += float(mean.sum(dtype=torch.float64))
                self._totals["squares"] += float(torch.linalg.vector_norm(mean, dtype=torch.float64)) ** 2
                self._totals["count"] += mean.numel()
                yield name, mean

    def figures(self) -> Mapping[str, float | int]:
        """Mean and Euclidean norm over the whole model."""
        totals = self._totals
        mean = totals["sum"] / max(totals["count"], 1)
        return {"mean": mean, "norm": totals["squares"] ** 0.5, "sequences": len(self.subject.texts)}

    def _bytes(self, names: list[str]) -> int:
        tensors = [self.subject.tensors[name] for name in names]
        return sum(tensor.numel() * (4 + tensor.element_size()) for tensor in tensors)

    def _rounds(self) -> list[list[str]]:
        found = rounds(self._together, self._bytes, self.subject.room)
        return [[name for together in each for name in together] for each in found]

    def _squares(self, names: list[str], texts: list[Text]) -> dict[str, Tensor]:
        """Σ over the texts of the squared gradient of each tensor, float32."""
        tensors = {name: self.subject.tensors[name] for name in names}
        sums = {name: torch.zeros(tensor.shape, device=tensor.device) for name, tensor in tensors.items()}
        with tracked(self.subject.model, tensors) as gradients:
            for text in texts:
                self.subject.beat()
                log_likelihoods(self.subject.model, [text])[0].backward()
                for name, gradient in gradients():
                    wide = gradient.float()
                    sums[name].addcmul_(wide, wide)
        return sums


def measure_fisher(subject: Subject, request: Request) -> Fisher:
    """The measurement of a `fisher` artefact."""
    return Fisher(subject, request.setting("labels") == "drawn")


@torch.no_grad()
def drawn(model: Any, text: Text, beat: Beat) -> Text:
    """The text with an answer as long that the model draws itself, at temperature 1, keyed by the context."""
    generator = torch.Generator().manual_seed(zlib.crc32(repr(text.context).encode()))
    ids, cache, answer = torch.tensor([text.context], device=model.device), None, list[int]()
    for _ in text.answer:
        beat()
        found = model(input_ids=ids, past_key_values=cache, use_cache=True)
        chances = found.logits[0, -1].float().softmax(-1).cpu()
        answer.append(int(torch.multinomial(chances, 1, generator=generator)))
        cache = getattr(found, "past_key_values", None)  # some models (Mamba) keep nothing under that name
        ids = torch.tensor([answer[-1:] if cache is not None else text.context + answer], device=model.device)
    return Text(text.context, answer)
