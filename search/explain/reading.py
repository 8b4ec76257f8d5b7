"""Makes a winner's explanation of what was scored for it, and of the study's trials."""

from collections.abc import Callable, Mapping, Sequence

from db.records import Evaluation, Study, Trial
from db.store import Store
from evaluation.objective import objective, oriented
from evaluation.result import Scored, TaskScore
from evaluation.statistics import Aggregation, Measure, compare, restricted
from search.explain.asked import asked, is_explained
from search.explain.changes import Change
from search.explain.importance import importance_of
from search.explain.record import Ablation, Explanation, Importance
from search.seeds import derive
from search.space import space_of
from search.standings import judged, scores_of
from search.twins import searched

Scores = Sequence[TaskScore]
Worth = Callable[[Trial], float]


def explanation_of(
    store: Store,
    study: Study,
    winner: Trial,
    trials: Sequence[Trial],
    measure: Measure,
    aggregations: Mapping[str, Aggregation],
    worth: Worth,
) -> Explanation | None:
    """The explanation of a study's winner; None: the study wants none, or there is nothing to tell.

    Nothing is scored for it here: a change of the winner that `Explaining` had not scored is left out.

    Args:
        trials: all of the study, every one told.
        measure: the objective.
        worth: a complete trial's score on all search documents.
    """
    if not is_explained(study):
        return None
    importance = _importance(study, winner, trials, worth)
    found = asked(store, study, winner)
    if found is None:
        return None if importance is None else Explanation(trial=winner.number, importance=importance)
    ours = restricted(scores_of(store, winner), found.documents, aggregations)
    known = [(c, store.evaluations.find(study.id, c.digest, "search", found.rung)) for c in found.changes]
    seed = study.spec["search"]["seed"]
    return Explanation(
        trial=winner.number,
        documents=sum(map(len, found.documents.values())),
        score=_value(measure, ours),
        ablations=tuple(_ablation(measure, c, e, ours, seed) for c, e in known if e is not None and e.outcome),
        unused=found.unused,
        inseparable=found.inseparable,
        importance=importance,
    )


def _ablation(measure: Measure, change: Change, evaluation: Evaluation, ours: Scores, seed: int) -> Ablation:
    told = Ablation(change=change.kind, expert=change.expert, recipe_digest=change.digest)
    outcome = evaluation.outcome
    if not isinstance(outcome, Scored):
        return told.model_copy(update={"why": "it was not scored" if outcome is None else outcome.why})
    theirs = judged(outcome.scores)
    found = compare(measure, ours, theirs, seed=derive(seed, "explanation", change.kind, change.expert or ""))
    interval = {"difference": found.interval.value, "low": found.interval.low, "high": found.interval.high}
    by_task = {s.task: oriented(s.value, s) for s in theirs}
    tasks = {s.task: float(oriented(s.value, s) - by_task[s.task]) for s in ours}
    numbers = {"score": _value(measure, theirs), "p_value": found.p, "tasks": tasks}
    return told.model_copy(update=numbers | interval)


def _value(measure: Measure, scores: Scores) -> float:
    return objective(measure.kind, scores, measure.weights, measure.scales)


def _importance(study: Study, winner: Trial, trials: Sequence[Trial], worth: Worth) -> Importance | None:
    """Of the trials that have a score or an estimate, what that depended on."""
    points = []
    for trial in searched(trials):
        value = worth(trial) if trial.value is not None else trial.estimate
        if trial.params is not None and value is not None:
            points.append((trial.params, value))
    return importance_of(space_of(study), points, winner.params)
