"""Reading all texts with the live model: in batches, again with smaller ones if memory runs out, in rounds."""

import logging
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch

from evaluation.artefacts.contract import Subject
from evaluation.artefacts.texts import Text
from evaluation.lm.budget import out_of_memory

log = logging.getLogger(__name__)
T = TypeVar("T")


def rounds(items: Sequence[T], size: Callable[[T], int], room: int) -> list[list[T]]:
    """Items in their order, in runs that fit the room; one that does not fit is a run of its own."""
    found: list[list[T]] = []
    used = 0
    for item in items:
        if not found or used + size(item) > room:
            found.append([])
            used = 0
        found[-1].append(item)
        used += size(item)
    return found


def read_all(subject: Subject, read: Callable[[Sequence[Text]], None], restart: Callable[[], None]) -> None:
    """Reads every text once, longest first.

    Args:
        read: reads a batch and adds to sums.
        restart: forgets what was added: memory ran out, and all is read again in smaller batches.

    Raises:
        MemoryError: one text alone does not fit.
    """
    while not _read(subject, read):
        log.warning("out of memory", extra={"action": "measuring.restarted", "positions": subject.budget.tokens})
        restart()


def _read(subject: Subject, read: Callable[[Sequence[Text]], None]) -> bool:
    for batch in subject.budget.batches(sorted(subject.texts, key=len, reverse=True), lambda text: text.positions):
        subject.beat()
        try:
            read(batch)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            positions = len(batch) * batch[0].positions
            if len(batch) == 1:
                raise MemoryError(f"a sequence of {positions} positions does not fit") from error
            subject.budget.tokens = positions // 2
            return False
    return True


def forward(model: Any, texts: Sequence[Text], *, whole: bool = False) -> torch.Tensor:
    """One pass without the head over rows padded on the right: no position sees the padding behind it.

    Args:
        whole: the last token too, behind which a model says that it has ended; else it is left out.

    Returns:
        What the head reads, [rows, positions, hidden].
    """
    lengths = [len(text) if whole else text.positions for text in texts]
    ids = torch.zeros(len(texts), max(lengths), dtype=torch.long)
    for i, (text, length) in enumerate(zip(texts, lengths, strict=True)):
        ids[i, :length] = torch.tensor([*text.context, *text.answer][:length])
    found: torch.Tensor = model.base_model(input_ids=ids.to(model.device), use_cache=False).last_hidden_state
    return found
