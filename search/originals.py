"""Where experts are kept compressed: the best recipes are built once more, from the experts as they are.

A search over compressed experts finds weights, and its scores are those of what compression left. So before the holdout
is read its best recipes are scored with the original experts, on all search documents, as trials of their own: each can
win, and beside the one it was made of it shows what compression costs.
"""

from collections.abc import Sequence
from itertools import islice

from db.faults import fault_point
from db.records import Lead, Study, Trial
from db.store import Store
from db.trials import NewTrial
from evaluation.result import Failed, Infeasible
from merging.recipe import Recipe
from search.judge import Judge
from search.pairs import best_compressed
from search.standings import Standings, judged
from search.starts.start import is_baseline
from search.twins import twin_origin, twins

MOST = 3
"""Recipes that are built from the originals: compression may change the order of the best few."""
LOOKED_AT = 2 * MOST
"""Recipes that are looked at: some cannot be built so, or are baselines."""


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
        there, known = twins(trials), self._baselines(trials)
        waiting, good, count = [], 0, len(trials)
        for trial in islice(best_compressed(self._store, self._study, trials), LOOKED_AT):
            twin = there.get(trial.number)
            if twin is None:
                recipe, digest = self._whole(trial)
                if digest in known:  # a baseline; there is nothing to learn of it
                    continue
                new = NewTrial(count, twin_origin(trial.number), None, recipe, digest, None, self._last)
                fault_point("controller.originals")
                twin, count = self._store.trials.add(self._lead, new), count + 1
            twin = self._told(twin)
            if twin.state == "open" and twin.evaluation_id is not None:
                waiting.append(twin.evaluation_id)
            good += twin.state in ("open", "complete")
            if good == MOST:
                break
        return tuple(sorted(waiting))

    def _baselines(self, trials: Sequence[Trial]) -> set[str]:
        """Digests of the recipes that were scored as baselines."""
        ids = (t.evaluation_id for t in trials if is_baseline(t.origin) and t.evaluation_id is not None)
        return {self._store.evaluations.get(id_).recipe_digest for id_ in ids}

    def _whole(self, trial: Trial) -> tuple[Recipe, str]:
        assert trial.evaluation_id is not None, "a complete trial was evaluated"
        recipe = self._store.evaluations.recipe(trial.evaluation_id).model_copy(update={"compress": None})
        return recipe, recipe.digest(self._study.setup["fingerprints"])

    def _told(self, trial: Trial) -> Trial:
        """The trial, told if it is scored."""
        if trial.state != "open" or trial.evaluation_id is None:
            return trial
        outcome = self._store.evaluations.get(trial.evaluation_id).outcome
        if outcome is None:
            return trial
        if isinstance(outcome, Infeasible | Failed):
            return self._store.trials.tell(self._lead, trial.number, outcome.kind, None, outcome.why)
        scores = judged(outcome.scores)
        value, constraints = self._judge.value(scores), self._judge.constraints(scores)
        return self._store.trials.tell(self._lead, trial.number, "complete", value, constraints=constraints)
