"""The one door to the documents' texts for whatever is not a score: statistics, gradients, proxies.

What is tuned on a document knows it, so none of the holdout may go through here: neither by its `doc_id`, nor as
a copy of its content in another task. Methods learn on training documents where a task has any, and on search
documents elsewhere: those they then answer better than they should.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from evaluation.split import canonical
from merging.errors import MergesearchError

if TYPE_CHECKING:
    from evaluation.harness import HarnessTask
    from evaluation.suite import Suite


class Contaminated(MergesearchError):
    """Something other than the final comparison asked for a document that is held out."""

    def __init__(self, task: str, doc_id: int, why: str) -> None:
        self.task, self.doc_id, self.why = task, doc_id, why
        super().__init__(f"document {doc_id} of task {task} is not for tuning: {why}; ask for search documents only")

    def __reduce__(self) -> tuple[type, tuple[str, int, str]]:
        return type(self), (self.task, self.doc_id, self.why)


@dataclass(frozen=True)
class Example:
    """A document's text.

    Attributes:
        doc_id: of a training document its place among those that are drawn.
        prompt: with its few-shot examples; empty where the whole text is what is scored (perplexity).
        continuation: the right one.
    """

    task: str
    doc_id: int
    prompt: str
    continuation: str


@dataclass(frozen=True)
class Calibration:
    """Texts to tune on, with the suite they are of: what is made of them is only good for a study of that digest."""

    suite_digest: str
    examples: tuple[Example, ...]


def calibration(suite: "Suite", each: int | None = None) -> Calibration:
    """The texts that methods learn on, with the suite's digest.

    Args:
        each: most documents of each task, the first in their order; None: all.

    Raises:
        InvalidStudy: a task does not say what is right.
        Contaminated: the split is not one by content.
    """
    held, found = _held(suite), list[Example]()
    for task in prompted(suite):
        lessons = suite.training.get(task.name)
        if lessons is None:
            found += [Example(task.name, i, *task.example(i)) for i in _order(suite, task, each, held)]
        else:
            found += [Example(task.name, i, *text) for i, text in enumerate(lessons.texts(each))]
    return Calibration(suite.digest, tuple(found))


def examples(suite: "Suite", each: int | None = None) -> list[Example]:
    """The texts of the search documents, task by task in scoring order; evaluators that have no prompts have none.

    Raises:
        InvalidStudy: a task does not say what is right.
        Contaminated: the split is not one by content.
    """
    return [Example(task.name, i, *task.example(i)) for task, i in _searched(suite, each)]


def prompts(suite: "Suite", each: int | None = None) -> list[str]:
    """The prompts alone of those documents; the text itself of those that have none.

    Raises:
        Contaminated: the split is not one by content.
    """
    return [task.prompt(i) for task, i in _searched(suite, each)]


def texts(suite: "Suite", task: str, doc_ids: Sequence[int]) -> list[Example]:
    """The texts of these search documents of one task.

    Raises:
        Contaminated: one of them is held out, is none of the study's, or has the content of one that is held out in
            whatever task.
        InvalidStudy: the task does not say what is right.
    """
    (own,) = (each for each in prompted(suite) if each.name == task)
    _require_searched(suite, own, doc_ids, _held(suite))
    return [Example(task, i, *own.example(i)) for i in doc_ids]


def _searched(suite: "Suite", each: int | None) -> "list[tuple[HarnessTask, int]]":
    """The search documents of all tasks with prompts, in scoring order."""
    held, found = _held(suite), []
    for task in prompted(suite):
        found += [(task, doc_id) for doc_id in _order(suite, task, each, held)]
    return found


def _order(suite: "Suite", task: "HarnessTask", each: int | None, held: set[bytes]) -> tuple[int, ...]:
    doc_ids = suite.order(task.name, "search")[:each]
    _require_searched(suite, task, doc_ids, held)
    return doc_ids


def _require_searched(suite: "Suite", task: "HarnessTask", doc_ids: Sequence[int], held: set[bytes]) -> None:
    searched = set(suite.documents(task.name, "search"))
    for doc_id in doc_ids:
        if doc_id not in searched:
            raise Contaminated(task.name, doc_id, "it is no search document")
        if canonical(task.documents[doc_id]) in held:
            raise Contaminated(task.name, doc_id, "its content is held out in a task of the study")


def prompted(suite: "Suite") -> "list[HarnessTask]":
    """The tasks that are lm-eval's: those that have prompts."""
    from evaluation.harness import HarnessTask

    return [task for task in suite.tasks if isinstance(task, HarnessTask)]


def _held(suite: "Suite") -> set[bytes]:
    """The contents of all documents that are held out."""
    return {
        canonical(task.documents[doc_id]) for task in suite.tasks for doc_id in suite.documents(task.name, "holdout")
    }
