"""Before the holdout is read: the winner is scored with one thing changed, to see what it owes to what.

These are no trials: nobody asked a strategy for them, none is told of them, and none can win.
"""

from db.faults import fault_point
from db.records import Study
from db.store import Store
from search.explain.asked import Asked, asked, is_explained
from search.recommended import recommended


class Explaining:
    """The scoring of what one study's explanation needs; nothing where it wants none."""

    def __init__(self, store: Store, study: Study) -> None:
        self._store, self._study = store, study
        self._asked: Asked | None = None
        self._begun = False

    def step(self) -> tuple[int, ...]:
        """Ids of the evaluations that are still to be done, none when all is done."""
        if not is_explained(self._study):
            return ()
        if not self._begun:
            order = recommended(self._store, self._study, self._store.trials.all(self._study.id)).order
            self._asked = asked(self._store, self._study, order[0]) if order else None
            self._begun = True
        fault_point("controller.explaining")
        if self._asked is None:
            return ()
        want, rung = self._store.evaluations.want, self._asked.rung
        found = [want(self._study.id, c.recipe, c.digest, "search", rung)[0] for c in self._asked.changes]
        return tuple(sorted(evaluation.id for evaluation in found if evaluation.outcome is None))
