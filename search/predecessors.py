"""Candidates of earlier studies over the same documents: what a new study has for a history until it has its own.

Which they are is found once, when a study is created, and kept with it: a study that is resumed decides by the same
ones, however far other studies have come since. Only the tasks that trials are raced on matter.

They are as many of each quality as an earlier search came by: learned from its last ones alone, which are all alike, an
estimate of anything else is worthless (measured on the zoo: off by .13 instead of .04 on 40 documents).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from db.records import DocumentSet
from db.store import Store
from evaluation.result import Part, Scored, TaskScore
from evaluation.spec import PROXY
from search.estimates.contract import Floats
from search.past import columns_of
from search.racing.contract import Past, row_of
from search.study import StudySpec

KEY = "predecessors"  # of a study's setup: evaluations of earlier studies
MOST = 100  # as many as a regression needs
Documents = Mapping[tuple[str, Part], DocumentSet]


def find_predecessors(store: Store, spec: StudySpec, documents: Documents) -> list[int]:
    """The evaluations of earlier complete trials that were scored on all documents that a new study races on.

    One of each recipe: a study tried again, or the same baselines in every study, tell nothing twice. None for a study
    that has no use for them: only `prune: history` has.

    Args:
        documents: of the new study.
    """
    sets = _raced({task: found for (task, part), found in documents.items() if part == "search"})
    digests = {found.digest for found in sets.values() if found.digest is not None}
    if spec.racing != "history" or len(digests) < len(sets):
        return []
    covering: dict[int, bool] = {}
    found: dict[str, int] = {}
    for evaluation, study, recipe in store.trials.scored_over(sorted(digests)):
        if study not in covering:
            covering[study] = _covers(store.studies.documents(study), sets)
        if covering[study]:
            found.setdefault(recipe, evaluation)
    every = list(found.values())
    step = max(1.0, len(every) / MOST)
    return [every[int(at * step)] for at in range(min(MOST, len(every)))]


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
        self._store, self._evaluations, self._value = store, tuple(evaluations), value
        self._sets = _raced(sets)
        self._read: _Read | None = None

    def at(self, rung: int) -> Past | None:
        """Them on the documents of a rung below the last, without numbers and parameters; None: there are none."""
        if not self._evaluations or not self._sets:
            return None
        if self._read is None:
            self._read = self._found()
        read, columns = self._read, columns_of(self._sets, rung, -2)
        documents = {task: found.ids[: found.sizes[rung]] for task, found in self._sets.items()}
        params = (None,) * len(read.items)
        return Past((), read.values[:, -1], read.values[:, rung], read.items[:, columns], params, documents)

    def _found(self) -> "_Read":
        documents = {task: found.ids[: found.sizes[-2]] for task, found in self._sets.items()}
        rungs = range(max(len(found.sizes) for found in self._sets.values()))
        empty = [rung for rung in rungs if not any(found.sizes[rung] for found in self._sets.values())]  # the proxy's
        items: list[Floats] = []
        values: list[list[float]] = []
        for evaluation in self._evaluations:
            outcome = self._store.evaluations.get(evaluation).outcome
            assert isinstance(outcome, Scored), f"evaluation {evaluation} was not scored"
            scores = [score for score in outcome.scores if score.task in self._sets]
            items.append(row_of(scores, documents))
            values.append([0.0 if rung in empty else self._value(scores, rung) for rung in rungs])
        return _Read(np.array(items, np.float32), np.array(values, np.float64))


@dataclass(frozen=True)
class _Read:
    """`items` on the largest rung below the last, [predecessors, documents]; `values`, [predecessors, rungs]."""

    items: Floats
    values: Floats


def _raced(sets: Mapping[str, DocumentSet]) -> dict[str, DocumentSet]:
    """The tasks that decide a race, sorted as in `PastItems`: the others have documents on the last rung alone."""
    return {t: found for t, found in sorted(sets.items()) if t != PROXY and len(found.sizes) > 1 and found.sizes[-2]}


def _covers(theirs: Documents, sets: Mapping[str, DocumentSet]) -> bool:
    """Whether who was scored on all search documents there has items for all of ours, found in the same way."""
    known = {task: theirs.get((task, "search")) for task in sets}
    return all(
        (their := known[task]) is not None and their.digest == found.digest and set(found.ids) <= set(their.ids)
        for task, found in sets.items()
    )
