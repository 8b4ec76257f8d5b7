"""How much an expert has still to learn of documents: its mean loss on their right answers.

An artefact `loss` has one tensor, `losses`: −log p(answer | context) a token of the answer, in nats, float32, one a
document in the order of the texts; and a figure `loss`, their mean.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from evaluation.artefacts.contract import Subject
from evaluation.artefacts.passes import read_all
from evaluation.artefacts.texts import Text, log_likelihoods
from merging.artefacts.request import Request
from merging.weightfiles import Shape

LOSSES = "losses"


@dataclass
class Losses:
    """Measures all texts: a `Measurement`."""

    subject: Subject
    rounds: int = 1
    _mean: float = field(default=0.0, init=False)

    @property
    def shapes(self) -> list[Shape]:
        """As `Measurement.shapes`."""
        return [(LOSSES, torch.float32, (len(self.subject.texts),))]

    @property
    def need(self) -> int:
        """Bytes of the sums."""
        return 4 * len(self.subject.texts)

    @torch.no_grad()
    def values(self) -> Iterator[tuple[str, Tensor]]:
        """As `Measurement.values`."""
        numbers = {id(text): i for i, text in enumerate(self.subject.texts)}
        found = torch.zeros(len(numbers))

        def read(batch: Sequence[Text]) -> None:
            for text, value in zip(batch, log_likelihoods(self.subject.model, batch), strict=True):
                found[numbers[id(text)]] = -value.cpu() / len(text.answer)

        read_all(self.subject, read, lambda: None)
        self._mean = float(found.double().mean())
        yield LOSSES, found

    def figures(self) -> Mapping[str, float | int]:
        """The mean over the documents, however long their answers are."""
        return {"loss": self._mean}


def measure_loss(subject: Subject, request: Request) -> Losses:
    """The measurement of a `loss` artefact."""
    return Losses(subject)
