"""The front of a study with several objectives: as its verdict has it, or as far as the search has come."""

from collections.abc import Sequence

from db.records import Study, Trial
from db.store import Store
from evaluation.result import TaskScore
from search.judge import Judge
from search.standings import scores_of
from search.study import StudySpec
from search.verdict import FrontPoint, Verdict


def front_of(store: Store, study: Study) -> tuple[FrontPoint, ...]:
    """The trials of the front, the knee, which is recommended, first; none of an objective that has no front.

    While the study lives every complete trial's scores are read: ask for it when somebody looks, not in a loop.
    """
    spec = StudySpec.model_validate(study.spec)
    if spec.objective != "pareto":
        return ()
    if study.state == "finished" and study.verdict is not None:
        return Verdict.model_validate(study.verdict).front
    trials = store.trials.all(study.id)
    complete = {t.number: scores_of(store, t) for t in trials if t.value is not None}
    judge = Judge(spec, [expert.name for expert in spec.models.experts])
    return tuple(front_point(t, complete[t.number]) for t in judge.front(trials, complete))


def front_point(trial: Trial, scores: Sequence[TaskScore]) -> FrontPoint:
    """A trial of the front, with its scores."""
    return FrontPoint(trial=trial.number, label=trial.origin, tasks={s.task: s.value for s in scores})
