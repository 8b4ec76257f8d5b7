"""The objective of a study as the statistics need it: on resampled, swapped or fewer documents."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation.objective import Kind, Scale, combine, oriented, scaled
from evaluation.resampling import CLOSED, Resampler, resampler
from evaluation.result import TaskScore
from merging.errors import InvalidInput

Floats = NDArray[np.float64]

BLOCK = 2_000_000  # numbers a block of draws may hold: bounds the memory
_ALIKE = 1e-9  # two ways to add the same numbers agree to this, relatively


@dataclass(frozen=True)
class Aggregation:
    """How a task makes one value of its documents' items. `name` is lm-eval's; `function` lm-eval's own code."""

    name: str
    function: Callable[[Sequence[Any]], float]


@dataclass(frozen=True)
class Measure:
    """The objective of a study, as the statistics need it.

    Attributes:
        kind: as in `objective`; a kind that compares candidates with each other is the plain weighted mean here.
        weights: each task's share, as in `objective`.
        aggregations: of each task; `Suite.aggregations()` has them, or `aggregations_of` finds them.
        scales: of the tasks that are scaled; constants.
    """

    kind: Kind
    weights: Mapping[str, float]
    aggregations: Mapping[str, Aggregation]
    scales: Mapping[str, Scale] = field(default_factory=dict)

    def counting(self, scores: Sequence[TaskScore]) -> list[TaskScore]:
        """The tasks that count, so that a slow metric that is only reported costs nothing; all if none counts."""
        return [s for s in scores if self.weights.get(s.task, 0.0) > 0] or list(scores)

    def resampler(self, score: TaskScore) -> Resampler:
        """The task's items, and their aggregate under changes of the documents."""
        aggregation = self.aggregations[score.task]
        return resampler(aggregation.name, aggregation.function, score.items)

    def combined(self, tasks: Sequence[TaskScore], values: Sequence[Any]) -> Any:
        """The objective; `values`: one a task, numbers or arrays of one shape (then element by element)."""
        signed = [scaled(oriented(v, task), task.task, self.scales) for v, task in zip(values, tasks, strict=True)]
        return combine(self.kind, signed, [self.weights.get(task.task, 0.0) for task in tasks])

    def observed(self, tasks: Sequence[TaskScore], samplers: Sequence[Resampler]) -> float:
        """The objective on the documents as they are."""
        return float(self.combined(tasks, [s.resampled(np.ones((1, s.size), np.int64)) for s in samplers])[0])


def pairs_of(
    measure: Measure, first: Sequence[TaskScore], second: Sequence[TaskScore]
) -> tuple[list[TaskScore], list[tuple[Resampler, Resampler]]]:
    """The tasks that count, and both candidates' items of each.

    Raises:
        InvalidInput: the candidates were not scored on the same documents.
    """
    require_same_documents(first, second)
    tasks, others = measure.counting(first), {s.task: s for s in second}
    return tasks, [(measure.resampler(task), measure.resampler(others[task.task])) for task in tasks]


def require_same_documents(first: Sequence[TaskScore], second: Sequence[TaskScore]) -> None:
    """Raise InvalidInput unless two candidates were scored on the same tasks, metrics and documents."""
    one, other = ({(s.task, s.metric): s.documents for s in scores} for scores in (first, second))
    for key in sorted(one.keys() | other.keys()):
        if one.get(key) != other.get(key):
            raise InvalidInput(
                f"scores.{key[0]}", key[1], "was not scored on the same documents", "score both on the same part"
            )


def restricted(
    scores: Sequence[TaskScore], documents: Mapping[str, Sequence[int]], aggregations: Mapping[str, Aggregation]
) -> tuple[TaskScore, ...]:
    """The scores a candidate has on fewer documents; no standard errors.

    Args:
        documents: the `doc_id`s to keep, of each task; tasks without any are left out.

    Raises:
        InvalidInput: the candidate was not scored on one of them, or a task's aggregation is not known.
    """
    found = []
    for score in scores:
        kept = tuple(sorted(documents.get(score.task, ())))
        if kept == score.documents:
            found.append(score)
        elif kept:
            found.append(_fewer(score, kept, aggregations))
    return tuple(found)


def shared(
    first: Sequence[TaskScore], second: Sequence[TaskScore], aggregations: Mapping[str, Aggregation]
) -> tuple[tuple[TaskScore, ...], tuple[TaskScore, ...]]:
    """Both candidates' scores on the documents that both have. Raises as `restricted`."""
    theirs = {s.task: frozenset(s.documents) for s in second}
    both = {s.task: [i for i in s.documents if i in theirs.get(s.task, ())] for s in first}
    return restricted(first, both, aggregations), restricted(second, both, aggregations)


def _fewer(score: TaskScore, kept: tuple[int, ...], aggregations: Mapping[str, Aggregation]) -> TaskScore:
    items = dict(zip(score.documents, score.items, strict=True))
    lacking = [i for i in kept if i not in items]
    if lacking:
        raise InvalidInput(f"scores.{score.task}", lacking[0], "is a document that was not scored", "score it first")
    if score.task not in aggregations:
        raise InvalidInput(
            f"scores.{score.task}", score.metric, "cannot be computed on fewer documents here", "score them again"
        )
    chosen = tuple(items[i] for i in kept)
    value = float(aggregations[score.task].function(chosen))
    return score.model_copy(update={"value": value, "stderr": None, "documents": kept, "items": chosen})


def aggregations_of(scores: Sequence[TaskScore]) -> dict[str, Aggregation]:
    """The aggregations that the scores themselves show: the closed form whose value on the items is the score's.

    For where no lm-eval is at hand. Tasks that are aggregated otherwise (f1, median, a function of the user's) are
    left out.
    """
    found = {}
    for score in scores:
        name = next((name for name in CLOSED if _gives(name, score)), None)
        if name is not None:
            found[score.task] = closed_aggregation(name)
    return found


def closed_aggregation(name: str) -> Aggregation:
    """One of lm-eval's aggregations that are functions of sums, by its name, without lm-eval."""

    def value(items: Sequence[Any]) -> float:
        return float(resampler(name, _never, items).resampled(np.ones((1, len(items)), np.int64))[0])

    return Aggregation(name, value)


def _gives(name: str, score: TaskScore) -> bool:
    try:
        value = closed_aggregation(name).function(score.items)
    except (TypeError, ValueError, IndexError):  # items of another shape
        return False
    return bool(abs(value - score.value) <= _ALIKE * max(1.0, abs(score.value)))


def _never(items: Sequence[Any]) -> float:
    raise AssertionError("a closed form calls no function")


def document_values(measure: Measure, score: TaskScore) -> Floats | None:
    """What each document would score alone, larger being better: [documents]; None where one has no value alone.

    That is so for aggregations without a closed form (f1, median): they speak of many documents.
    """
    alone = measure.resampler(score).alone()
    if alone is None:
        return None
    values: Floats = oriented(alone, score)
    return values


def limited(samplers: Iterable[Resampler], draws: int, slow: int) -> int:
    """That many draws; at most `slow` where an aggregation must be called once a draw."""
    return draws if all(s.fast for s in samplers) else min(draws, slow)


def blocks(documents: int, draws: int) -> Iterator[int]:
    """Sizes of blocks of draws, each a number a document, that fit the memory; their sum is `draws`."""
    rows = max(1, BLOCK // max(1, documents))
    for start in range(0, draws, rows):
        yield min(rows, draws - start)
