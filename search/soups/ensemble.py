"""What an average of experts may be worth, guessed from the experts' own answers without building it.

Menes and Risser-Maroix, "RADIN" (arXiv:2401.17790): to first order an average of weights answers as the average of the
logits does. A study keeps no logits but what the metric made of each document. So where documents are right or wrong
the experts vote with their weights; elsewhere (log-likelihoods) a document's values are averaged, which for
log-likelihoods is the average of logits up to its normalisation. How large a minority keeps an answer right is
not known, so there are three readings of a vote, and what was truly scored says how they count (`residual`).

Measured on experts of different tasks, such an ensemble ranks soups with a Kendall tau of about two thirds: good enough
to propose, not to decide.
"""

from collections.abc import Sequence

import numpy as np

from evaluation.constraints import right_or_wrong
from evaluation.objective import oriented
from evaluation.result import TaskScore
from evaluation.statistics import Floats, Measure, document_values

READINGS = 3
_NEEDED = (0.5, 0.25)  # weight behind an answer that makes it the ensemble's; the third reading is its share
_SOFT = 0.2  # of the weight: around the threshold a document counts in part
_BLOCK = 4_000_000  # numbers held at a time


class Ensemble:
    """The experts' answers.

    Args:
        measure: the study's objective.
        scores: of each expert alone, all on the same documents.
    """

    def __init__(self, measure: Measure, scores: Sequence[Sequence[TaskScore]]) -> None:
        self._measure = measure
        self._tasks = measure.counting(scores[0])
        found = [{score.task: score for score in one} for one in scores]
        self._tables = [self._table([one[task.task] for one in found]) for task in self._tasks]
        shares = {name for name, aggregation in measure.aggregations.items() if aggregation.name == "mean"}
        self._votes = [
            task.task in shares and all(right_or_wrong(one[task.task]) for one in found) for task in self._tasks
        ]

    def estimates(self, weights: Floats) -> Floats:
        """The objective under each reading: [averages, READINGS].

        Args:
            weights: [averages, experts], rows that add up to 1.
        """
        tasks = zip(self._tables, self._votes, self._tasks, strict=True)
        values = [self._read(table, votes, task, weights) for table, votes, task in tasks]
        return np.stack(
            [self._measure.combined(self._tasks, [v[:, i] for v in values]) for i in range(READINGS)], axis=1
        )

    def _table(self, scores: Sequence[TaskScore]) -> Floats:
        """[experts, documents], larger being better; of a metric that has no value of a single one, one column."""
        rows = [document_values(self._measure, score) for score in scores if score.task in self._measure.aggregations]
        alone = [row for row in rows if row is not None and np.isfinite(row).all()]
        if len(alone) == len(scores):
            return np.stack(alone)
        return np.array([[float(oriented(score.value, score))] for score in scores])

    def _read(self, table: Floats, votes: bool, task: TaskScore, weights: Floats) -> Floats:
        """A task's value under each reading, in its own direction: [averages, READINGS]."""
        found = np.empty((len(weights), READINGS))
        found[:] = (weights @ table.mean(axis=1))[:, None]
        if votes:
            right = table if task.higher_is_better else 1.0 + table  # of an error rate 0 and -1 are right and wrong
            rows = max(1, _BLOCK // table.shape[1])
            for start in range(0, len(weights), rows):
                behind = weights[start : start + rows] @ right
                for i, needed in enumerate(_NEEDED):
                    share = np.clip((behind - needed) / _SOFT + 0.5, 0.0, 1.0).mean(axis=1)
                    found[start : start + rows, i] = share if task.higher_is_better else share - 1.0
        return found if task.higher_is_better else -found
