"""Documents to learn on as token ids, as the scorer reads them: a context and the answer that is right."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from evaluation.calibration import calibration
from evaluation.suite import Suite
from merging.errors import InvalidStudy

Tokens = list[int]


@dataclass(frozen=True)
class Text:
    """One document.

    Attributes:
        context: what is given, never empty.
        answer: what is to be explained, never empty; context and answer fit the model's window together.
    """

    context: Tokens
    answer: Tokens

    def __len__(self) -> int:
        return len(self.context) + len(self.answer)

    @property
    def positions(self) -> int:
        """How many a model computes: nothing is said after the last token."""
        return len(self) - 1


def read_texts(suite: Suite, documents: int, pair: Callable[[str, str], Any], window: int) -> list[Text]:
    """The first documents to learn on of each task that is optimised, in their order; of long ones the end.

    Args:
        documents: most of each task.
        pair: token ids of a context and its continuation (`ResidentLM.pair`).
        window: most positions of a sequence.

    Raises:
        InvalidStudy: no task has documents with right answers.
    """
    found = []
    for example in calibration(suite, documents).examples:
        if example.task not in suite.tuned:
            continue
        context, answer = pair(example.prompt, example.continuation)
        answer = list(answer)[: window - 1]
        if context and answer:
            found.append(Text(list(context)[-(window - len(answer)) :], answer))
    if not found:
        problem, remedy = "have no documents to measure on", "use methods that look at no data, or add an lm_eval task"
        raise InvalidStudy("evaluation.tasks", None, problem, remedy)
    return found


def log_likelihoods(model: Any, texts: Sequence[Text]) -> list[Tensor]:
    """log p(answer | context) of each text, in nats: float32 scalars, with a graph where parameters are followed.

    Rows are padded on the right: no position sees the padding behind it.
    """
    ids = torch.zeros(len(texts), max(map(len, texts)), dtype=torch.long)
    for i, text in enumerate(texts):
        ids[i, : len(text)] = torch.tensor([*text.context, *text.answer])
    ids = ids.to(model.device)
    logits = model(input_ids=ids[:, :-1], use_cache=False).logits
    found = []
    for row, given, text in zip(logits, ids, texts, strict=True):
        asked = slice(len(text.context), len(text))
        before = slice(asked.start - 1, asked.stop - 1)
        found.append(row[before].float().log_softmax(-1).gather(1, given[asked, None]).sum())
    return found
