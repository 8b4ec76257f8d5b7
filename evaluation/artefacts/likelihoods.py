"""How well an expert explains the right answer of each document: by it, documents are shared out among experts.

An artefact `likelihoods` has one tensor, `answers`: log p(answer | context) in nats, float32, one a document in the
order of the texts.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from evaluation.artefacts.contract import Subject
from evaluation.artefacts.passes import read_all
from evaluation.artefacts.texts import Text, log_likelihoods
from merging.artefacts.request import Request
from merging.weightfiles import Shape

ANSWERS = "answers"


@dataclass
class Likelihoods:
    """Measures all texts: a `Measurement`."""

    subject: Subject
    rounds: int = 1

    @property
    def shapes(self) -> list[Shape]:
        """As `Measurement.shapes`."""
        return [(ANSWERS, torch.float32, (len(self.subject.texts),))]

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
                found[numbers[id(text)]] = value.cpu()

        read_all(self.subject, read, lambda: None)
        yield ANSWERS, found

    def figures(self) -> Mapping[str, float | int]:
        """None beside the values."""
        return {}


def measure_likelihoods(subject: Subject, request: Request) -> Likelihoods:
    """The measurement of a `likelihoods` artefact."""
    return Likelihoods(subject)


def own(texts: Sequence[Text], answers: Sequence[Tensor], expert: int) -> list[Text]:
    """The texts that an expert explains better than every other one; of equal ones the first has it. All, if none.

    Args:
        answers: of each expert, log p of each text's answer, [texts].
    """
    best = torch.stack(list(answers)).argmax(0).tolist()
    return [text for text, owner in zip(texts, best, strict=True) if owner == expert] or list(texts)
