"""Candidates of earlier studies over the same documents: what a new study has for a history until it has its own.

Which they are is found once, when a study is created, and kept with it: a study that is resumed decides by the same
ones, however far other studies have come since.

They are as many of each quality as an earlier search came by: learned from its last ones alone, which are all alike, an
estimate of anything else is worthless (measured on the zoo: off by .13 instead of .04 on 40 documents).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from db.documents import REHEARSAL
from db.records import DocumentSet, Study
from db.store import Store
from evaluation.result import Part, Scored, TaskScore
from search.racing.contract import Past, row_of
from search.study import StudySpec

KEY = "predecessors"  # of a study's setup: evaluations of earlier studies
MOST = 100  # as many as a regression needs
Documents = Mapping[tuple[str, Part], DocumentSet]


def find_predecessors(store: Store, spec: StudySpec, documents: Documents) -> list[int]:
    """The evaluations of earlier complete trials that were scored on all search documents of a new study.

    None for a study that has no use for them: only `prune: history` has.

    Args:
        documents: of the new study.
    """
    if spec.racing != "history":
        return []
    found = [
        trial.evaluation_id
        for study in _newest_first(store)
        if _covers(store.studies.documents(study.id), documents)
        for trial in store.trials.all(study.id)
        if trial.state == "complete" and trial.evaluation_id is not None
    ]
    step = max(1.0, len(found) / MOST)
    return [found[int(at * step)] for at in range(min(MOST, len(found)))]


class Predecessors:
    """What the predecessors of one study got on its search documents; read once, and only if somebody asks.

    Args:
        sets: the search documents of each task.
        evaluations: as `find_predecessors` gives them.
        value: the study's objective of scores on the documents of a rung.
    """

    def __init__(
        self,
        store: Store,
        sets: Mapping[str, DocumentSet],
        evaluations: Sequence[int],
        value: Callable[[Sequence[TaskScore], int], float],
    ) -> None:
        self._store, self._sets = store, {task: sets[task] for task in sorted(sets)}
        self._evaluations, self._value = tuple(evaluations), value
        self._scores: tuple[tuple[TaskScore, ...], ...] | None = None
        self._made: dict[int, Past] = {}

    def at(self, rung: int) -> Past | None:
        """Them on the documents of a rung below the last, without numbers and parameters; None: there are none."""
        if self._scores is None:
            self._scores = tuple(self._read())
        if rung not in self._made and self._scores:
            self._made[rung] = self._make(rung, self._scores)
        return self._made.get(rung)

    def _make(self, rung: int, scores: Sequence[tuple[TaskScore, ...]]) -> Past:
        last = max(len(found.sizes) for found in self._sets.values()) - 1
        documents = {task: found.ids[: found.sizes[rung]] for task, found in self._sets.items()}
        return Past(
            numbers=(),
            values=np.array([self._value(each, last) for each in scores], np.float64),
            on_rung=np.array([self._value(each, rung) for each in scores], np.float64),
            items=np.array([row_of(each, documents) for each in scores], np.float32),
            params=(None,) * len(scores),
            documents=documents,
        )

    def _read(self) -> Iterator[tuple[TaskScore, ...]]:
        """All but what a formula scored."""
        for evaluation in self._evaluations:
            outcome = self._store.evaluations.get(evaluation).outcome
            if isinstance(outcome, Scored) and outcome.device != REHEARSAL:
                yield outcome.scores


def _newest_first(store: Store) -> Iterator[Study]:
    return reversed(store.studies.all())


def _covers(theirs: Documents, ours: Documents) -> bool:
    """Whether who was scored on all search documents there has items for all of ours, found in the same way."""
    return all(
        found.digest is not None
        and (known := theirs.get((task, part))) is not None
        and known.digest == found.digest
        and set(found.ids) <= set(known.ids)
        for (task, part), found in ours.items()
        if part == "search"
    )
