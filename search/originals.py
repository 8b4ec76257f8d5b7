"""Where experts are kept compressed: the best recipes are built once more, from the experts as they are.

A search over compressed experts finds weights, and its scores are those of what compression left. So before the holdout
is read its best recipes are scored with the original experts, on all search documents, as trials of their own: each can
win, and beside the one it was made of it shows what compression costs.
"""

from itertools import islice

from db.faults import fault_point
from db.records import Lead, Study, Trial
from db.store import Store
from db.trials import NewTrial
from evaluation.result import Failed, Infeasible, Scored
from search.judge import Judge
from search.pairs import best_compressed
from search.standings import Standings, judged
from search.twins import twin_origin, twins

MOST = 3
"""Recipes that are built from the originals: compression may change the order of the best few."""


class Originals:
    """The scoring of one study's best recipes with the original experts.

    Args:
        judge: with its references.
        standings: of the search that is over.
    """

    def __init__(self, store: Store, lead: Lead, study: Study, judge: Judge, standings: Standings) -> None:
        self._store, self._lead, self._study, self._judge = store, lead, study, judge
        self._last = standings.last

    def step(self) -> tuple[int, ...]:
        """Tell what is scored; ids of the evaluations that are still to be done, none when all is done."""
        trials = self._store.trials.all(self._study.id)
        there, count = twins(trials), len(trials)
        waiting = []
        for trial in islice(best_compressed(self._store, self._study, trials), MOST):
            if trial.number not in there:
                there = {**there, trial.number: self._add(count, trial)}
                count += 1
            if (id_ := self._tell(there[trial.number])) is not None:
                waiting.append(id_)
        return tuple(sorted(waiting))

    def _add(self, number: int, trial: Trial) -> Trial:
        assert trial.evaluation_id is not None, "a complete trial was evaluated"
        recipe = self._store.evaluations.recipe(trial.evaluation_id).model_copy(update={"compress": None})
        digest = recipe.digest(self._study.setup["fingerprints"])
        fault_point("controller.originals")
        return self._store.trials.add(
            self._lead, NewTrial(number, twin_origin(trial.number), None, recipe, digest, None, self._last)
        )

    def _tell(self, trial: Trial) -> int | None:
        """Complete one trial; the id of its evaluation while that is not done."""
        if trial.state != "open" or trial.evaluation_id is None:
            return None
        outcome = self._store.evaluations.get(trial.evaluation_id).outcome
        if outcome is None:
            return trial.evaluation_id
        if isinstance(outcome, Infeasible | Failed):
            self._store.trials.tell(self._lead, trial.number, outcome.kind, None, outcome.why)
        if isinstance(outcome, Scored):
            scores = judged(outcome.scores)
            value, constraints = self._judge.value(scores), self._judge.constraints(scores)
            self._store.trials.tell(self._lead, trial.number, "complete", value, constraints=constraints)
        return None
