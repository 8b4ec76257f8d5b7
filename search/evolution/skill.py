"""A skill: what a trial scores on each document, the least that archives need to remember of its evaluation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evaluation.objective import oriented
from evaluation.result import TaskScore
from evaluation.statistics import Measure, aggregations_of, document_values

Documents = NDArray[np.int64]
Values = NDArray[np.float32]
_MOST = float(np.finfo(np.float32).max)  # stands for infinity: the perplexity of a hopeless document


@dataclass(frozen=True)
class Skill:
    """What a trial scores on each document; larger is better.

    Attributes:
        documents: of each task, the `doc_id`s, ascending.
        values: of each task, one a document, in the metric's own units.
    """

    documents: Mapping[str, Documents]
    values: Mapping[str, Values]


def read_skill(scores: Sequence[TaskScore], weights: Mapping[str, float]) -> Skill:
    """The skill that scores show.

    A task whose metric has no value of a single document (f1, a median) counts as if every document had the task's.

    Args:
        weights: of the tasks; those of weight 0 are left out, those not named count.
    """
    counting = [s for s in scores if weights.get(s.task, 1.0) > 0 and s.documents]
    return Skill(
        {s.task: np.asarray(s.documents, dtype=np.int64) for s in counting}, {s.task: _values(s) for s in counting}
    )


def plain_skill(value: float) -> Skill:
    """The skill of a trial of which nothing but its value is known: one document."""
    return Skill({"": np.zeros(1, np.int64)}, {"": np.full(1, value, np.float32)})


def _values(score: TaskScore) -> Values:
    known = aggregations_of([score])
    alone = document_values(Measure("mean", {score.task: 1.0}, known), score) if known else None
    if alone is None:
        return np.full(len(score.documents), oriented(score.value, score), np.float32)
    return np.clip(np.nan_to_num(alone, nan=-_MOST), -_MOST, _MOST).astype(np.float32)
