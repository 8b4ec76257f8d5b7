"""The suite of a study: its tasks with their metric, the documents of each part, and a digest that names it all."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

from evaluation.result import Part
from evaluation.spec import EvaluationSpec
from evaluation.split import Split, canonical, require_both_parts, split
from evaluation.statistics import Aggregation

if TYPE_CHECKING:
    from evaluation.harness import HarnessTask


@dataclass(frozen=True)
class Suite:
    """What candidates are scored on. Two suites of one digest give one model the same scores.

    Attributes:
        tasks: as the study names them, in its order.
        splits: the documents of each task.
        digest: of the tasks' configuration, metric and prompts, and the documents of each part.
    """

    tasks: "tuple[HarnessTask, ...]"
    splits: Mapping[str, Split]
    digest: str

    @staticmethod
    def load(spec: EvaluationSpec, root: Path, key: str) -> "Suite":
        """Load a study's tasks and split their documents.

        Args:
            root: what `include_path` is relative to.
            key: the study's split key.

        Raises:
            InvalidStudy: a task, metric or folder is unknown or unusable, or a part of a task has no documents.
        """
        from evaluation.harness import load_tasks  # lm-eval takes a second to import

        tasks = tuple(load_tasks(spec, root))
        splits = {task.name: split(task.documents, key, spec.holdout, spec.documents) for task in tasks}
        for i, task in enumerate(tasks):
            require_both_parts(splits[task.name], f"evaluation.tasks[{i}]", task.name, len(task.documents))
        return Suite(tasks, splits, _digest(tasks, splits))

    def documents(self, task: str, part: Part) -> tuple[int, ...]:
        """The `doc_id`s of one part of a task, ascending."""
        parts = self.splits[task]
        return parts.search if part == "search" else parts.holdout

    def aggregations(self) -> dict[str, Aggregation]:
        """How each task makes one value of its documents' items."""
        return {task.name: task.aggregation for task in self.tasks}


def _digest(tasks: "Sequence[HarnessTask]", splits: Mapping[str, Split]) -> str:
    from evaluation.harness import VERSION

    state = blake2b(canonical(["mergesearch/suite/v1", VERSION]), digest_size=16)
    for task in tasks:
        parts = splits[task.name]
        state.update(canonical([task.name, task.shown_metric, task.higher_is_better, task.config]))
        state.update(canonical([parts.search, parts.holdout]))
        for text in _requests(task, (*parts.search, *parts.holdout)):
            state.update(text)
    return state.hexdigest()


def _requests(task: "HarnessTask", doc_ids: Sequence[int]) -> Iterator[bytes]:
    """Prompts with their few-shot examples, and the documents they are judged by."""
    for doc_id in doc_ids:
        yield canonical([task.documents[doc_id], *(request.arguments for request in task.instances[doc_id])])
