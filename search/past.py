"""What the complete trials of a study got, document by document, as few-document estimates need it.

Read once from the store, and kept as one number a document of the largest rung below the last: rungs are nested, so
every smaller one is a part of it.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from db.records import DocumentSet, Trial
from db.store import Store
from evaluation.result import Scored
from search.racing.contract import Past, row_of


class PastItems:
    """The complete trials' items.

    Args:
        sets: the search documents of each task.
        most: the largest rung that is asked for.
    """

    def __init__(self, store: Store, sets: Mapping[str, DocumentSet], most: int) -> None:
        self._store, self._sets, self._most = store, {task: sets[task] for task in sorted(sets)}, most
        self._rows: dict[int, np.ndarray] = {}
        self._made: dict[int, Past] = {}  # by rung; of the complete trials of then

    def at(self, rung: int, complete: Mapping[int, Trial], on_rung: Mapping[int, float]) -> Past:
        """The complete trials on that rung's documents, by number.

        Args:
            on_rung: the objective of each of them over those documents.

        Raises:
            InvalidInput: one was not scored on them.
        """
        numbers = tuple(sorted(complete))
        known = self._made.get(rung)
        if known is None or known.numbers != numbers:
            known = self._made[rung] = self._make(rung, [complete[number] for number in numbers], on_rung)
        return known

    def _make(self, rung: int, trials: Sequence[Trial], on_rung: Mapping[int, float]) -> Past:
        columns = columns_of(self._sets, rung, self._most)
        rows = [self._row(trial)[columns] for trial in trials]
        return Past(
            numbers=tuple(trial.number for trial in trials),
            values=np.array([trial.value for trial in trials], np.float64),
            on_rung=np.array([on_rung[trial.number] for trial in trials], np.float64),
            items=np.array(rows, np.float32).reshape(len(rows), len(columns)),
            params=tuple(trial.params for trial in trials),
            documents=self._documents(rung),
        )

    def _row(self, trial: Trial) -> np.ndarray:
        if trial.number not in self._rows:
            assert trial.evaluation_id is not None, f"trial {trial.number} was not evaluated"
            outcome = self._store.evaluations.get(trial.evaluation_id).outcome
            assert isinstance(outcome, Scored), f"trial {trial.number} was not scored"
            self._rows[trial.number] = row_of(outcome.scores, self._documents(self._most))
        return self._rows[trial.number]

    def _documents(self, rung: int) -> dict[str, tuple[int, ...]]:
        return {task: found.ids[: found.sizes[rung]] for task, found in self._sets.items()}


def columns_of(sets: Mapping[str, DocumentSet], rung: int, most: int) -> list[int]:
    """Which columns of rows over the documents of rung `most`, one task after the other, are of a rung below it."""
    columns: list[int] = []
    begin = 0
    for found in sets.values():
        columns += range(begin, begin + found.sizes[rung])
        begin += found.sizes[most]
    return columns
