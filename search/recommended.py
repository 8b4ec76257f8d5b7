"""Which of a study's complete trials is recommended: the best, unless that is hardly better than what it began with.

The best of many trials owes part of its score to the documents that it was picked on, and most of what a search tries
is worse than a good start. So a gain over the best start below two standard errors of the difference counts as luck:
the rule by which trees are pruned (Breiman, Friedman, Olshen and Stone, Classification and Regression Trees, 1984,
section 3.4.3), where what was there before the search stands for the simplest. They take one standard error; the best
of a hundred trials that are no better than the start is two and a half above it by luck alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from db.records import Study, Trial
from db.store import Store
from search.judge import Judge, violation
from search.luck import gain_of
from search.ranked import ranked
from search.standings import scores_of
from search.starts.start import is_start
from search.study import StudySpec
from search.twins import is_lossy
from search.verdict import PassedOver


@dataclass(frozen=True)
class Recommended:
    """The complete trials of a study, the recommended one first, the others best first.

    Attributes:
        passed_over: the best, where it is not the first.
    """

    order: tuple[Trial, ...]
    passed_over: PassedOver | None


def recommended(store: Store, study: Study, trials: Sequence[Trial]) -> Recommended:
    """The complete trials in the order in which they should be taken.

    Objectives that compare trials, and studies of compressed experts, whose winner may be a recipe that no trial of
    the search had, take the best.
    """
    order, spec = tuple(ranked(store, study, trials)), StudySpec.model_validate(study.spec)
    judge = Judge(spec, tuple(e.name for e in spec.models.experts))
    if not spec.search.margin or judge.relative or spec.objective == "pareto" or is_lossy(study):
        return Recommended(order, None)
    for trial in trials:
        if trial.origin in judge.needs and trial.value is not None:
            judge.refer(trial.origin, scores_of(store, trial))
    start = next((t for t in order if is_start(t.origin, spec.search.strategy)), None)
    if start is None or start is order[0] or violation(start) > violation(order[0]) or not judge.ready:
        return Recommended(order, None)
    gain = gain_of(judge.measure({}), scores_of(store, order[0]), scores_of(store, start), spec.search.seed)
    if gain is None or not gain.is_luck(spec.search.margin):
        return Recommended(order, None)
    passed = PassedOver(trial=order[0].number, difference=gain.difference, stderr=gain.stderr)
    return Recommended((start, *(t for t in order if t is not start)), passed)
