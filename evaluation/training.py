"""The training splits of a study's tasks: what methods learn on where there is one.

What a method was fitted to it answers better than what it has never seen. Were it fitted to search documents, their
scores would flatter it, and a search would prefer whatever remembers more of them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from random import Random
from typing import TYPE_CHECKING, Any

from evaluation.split import canonical

if TYPE_CHECKING:
    from evaluation.harness import HarnessTask

MOST = 1024  # documents of a task; no search asks for more
LEAST = 32  # fewer (some splits hold the few-shot examples alone) say too little of a task


@dataclass
class Lessons:
    """Documents of one task's training split, in random order."""

    task: "HarnessTask"
    documents: tuple[Any, ...]
    _texts: list[tuple[str, str]] = field(default_factory=list)  # of the first so many, those that may be shown
    _read: int = 0

    def texts(self, each: int | None) -> list[tuple[str, str]]:
        """Prompt and right continuation of the first so many, or of all; built when they are first asked for.

        Raises:
            InvalidStudy: one cannot be read.
        """
        while self._read < len(self.documents) and (each is None or len(self._texts) < each):
            found = self.task.taught(self.documents[self._read])
            self._read += 1
            self._texts += [] if found is None else [found]
        return self._texts[:each]


Training = Mapping[str, Lessons]
"""Of each task that has a training split."""


def training_of(tasks: "Sequence[HarnessTask]", scored: Callable[[], set[bytes]], key: str) -> dict[str, Lessons]:
    """Documents to learn on, none of which has the content of one that is scored, in whatever task.

    Args:
        scored: the contents of all documents that are; asked once, if a task has a training split.
        key: the study's split key; another key draws other documents.

    Raises:
        InvalidStudy: a task's training split cannot be read.
    """
    found: dict[str, Lessons] = {}
    trained = [task for task in tasks if task.trained >= LEAST]
    taken = scored() if trained else set()
    for task in trained:
        numbers = Random(f"{key} {task.name}").sample(range(task.trained), min(task.trained, MOST))
        own = tuple(document for document in task.training(numbers) if canonical(document) not in taken)
        if len(own) >= LEAST:
            found[task.name] = Lessons(task, own)
    return found


def digest_of(training: Training) -> str:
    """Of all documents in their order; empty where there are none."""
    if not training:
        return ""
    state = blake2b(digest_size=16)
    for task in sorted(training):
        state.update(canonical([task, *training[task].documents]))
    return state.hexdigest()
