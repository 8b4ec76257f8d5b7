"""Who stands in the final comparison: the baselines and the winner, scored on the holdout.

Only here are holdout documents scored. Who wins was decided before, on the search documents; the holdout
changes that in one case: a winner that cannot be scored on it gives way to the next best, and the report says so.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from db.records import Evaluation, Study, Trial
from db.store import Store
from evaluation.constraints import BASE
from evaluation.result import Failed, Infeasible, Scored, TaskScore
from merging.errors import MergesearchError
from search.judge import Judge
from search.standings import scores_of
from search.starts import UNIFORM, expert_origin
from search.study import StudySpec


class HoldoutFailed(MergesearchError):
    """No candidate could be scored on the holdout."""


@dataclass(frozen=True)
class Finalists:
    """The candidates of the report, all scored on the holdout.

    Attributes:
        compared: the experts, the uniform soup, the base if it was scored, then the winner if it is none of them.
        missing: who should stand here and could not be scored, with the reason.
    """

    winner: Trial
    compared: tuple[Trial, ...]
    missing: dict[str, str]


@dataclass(frozen=True)
class Unmeasured:
    """These evaluations must be done before the finalists are known."""

    evaluation_ids: tuple[int, ...]


class _Scores(Mapping[int, Sequence[TaskScore]]):
    """The scores of complete trials by number, read when they are looked at: most objectives do not."""

    def __init__(self, store: Store, trials: Sequence[Trial]) -> None:
        self._store = store
        self._trials = {t.number: t for t in trials if t.value is not None}
        self._read: dict[int, tuple[TaskScore, ...]] = {}

    def __getitem__(self, number: int) -> Sequence[TaskScore]:
        if number not in self._read:
            self._read[number] = scores_of(self._store, self._trials[number])
        return self._read[number]

    def __iter__(self) -> Iterator[int]:
        return iter(self._trials)

    def __len__(self) -> int:
        return len(self._trials)


def ranked(store: Store, study: Study, trials: Sequence[Trial]) -> list[Trial]:
    """The study's complete trials, best first by its objective, those that meet its constraints before the others."""
    spec = StudySpec.model_validate(study.spec)
    judge = Judge(spec, tuple(e.name for e in spec.models.experts))
    return judge.ranking(trials, _Scores(store, trials))


def find_finalists(
    store: Store, study: Study, trials: Sequence[Trial], experts: Sequence[str]
) -> Finalists | Unmeasured:
    """The finalists, as soon as all that is needed of the holdout is scored; what is missing is queued.

    Args:
        trials: all trials of the study, every one told, and those rescored that could still win.

    Raises:
        HoldoutFailed: nobody could be scored.
    """
    origins = [*(expert_origin(name) for name in experts), UNIFORM, BASE]
    found = {t.origin: t for t in reversed(trials) if t.origin in origins}
    missing = {origin: t.why or t.state for origin, t in found.items() if t.value is None}
    baselines = [found[origin] for origin in origins if origin in found and origin not in missing]
    order = ranked(store, study, trials)
    held = {t.number: holdout_evaluation(store, study, t) for t in (*baselines, *order[:1])}
    waiting = {e.id for e in held.values() if e.outcome is None}
    if waiting:
        return Unmeasured(tuple(sorted(waiting)))
    reasons = {t.number: _why_unscored(held[t.number]) for t in baselines}
    missing |= {t.origin: why for t in baselines if (why := reasons[t.number]) is not None}
    compared = tuple(t for t in baselines if reasons[t.number] is None)
    for trial in order:
        evaluation = holdout_evaluation(store, study, trial)
        if evaluation.outcome is None:
            return Unmeasured((evaluation.id,))
        why = _why_unscored(evaluation)
        if why is None:
            return Finalists(trial, (*compared, *([] if trial in compared else [trial])), missing)
        missing.setdefault(trial.origin if trial in baselines else f"trial {trial.number} ({trial.origin})", why)
    told = "; ".join(f"{who}: {why}" for who, why in missing.items())
    raise HoldoutFailed(f"no candidate could be scored on the holdout ({told}); mend that and run the study again")


def holdout_evaluation(store: Store, study: Study, trial: Trial) -> Evaluation:
    """The evaluation of a trial's recipe on the holdout, queued if there was none."""
    assert trial.evaluation_id is not None, "a complete trial was evaluated"
    searched = store.evaluations.get(trial.evaluation_id)
    return store.evaluations.want(study.id, searched.recipe, searched.recipe_digest, "holdout")[0]


def _why_unscored(evaluation: Evaluation) -> str | None:
    """Why it has no score; None if it has one."""
    if isinstance(evaluation.outcome, Scored):
        return None
    assert isinstance(evaluation.outcome, Infeasible | Failed), "it is done"
    return evaluation.outcome.why
