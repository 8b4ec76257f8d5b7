"""Who stands in the final comparison: the baselines and the winner, scored on the holdout.

Only here are holdout documents scored. Who wins was decided before, on the search documents; the holdout
changes that in one case: a winner that cannot be scored on it gives way to the next best, and the report says so.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from db.records import Evaluation, Study, Trial
from db.store import Store
from evaluation.constraints import BASE
from evaluation.result import Failed, Infeasible, Scored
from merging.errors import MergesearchError
from search.pairs import pairs
from search.recommended import recommended
from search.starts.start import UNIFORM, expert_origin
from search.twins import is_twin
from search.verdict import PassedOver


class HoldoutFailed(MergesearchError):
    """No candidate could be scored on the holdout."""


@dataclass(frozen=True)
class Finalists:
    """The candidates of the report, all scored on the holdout.

    Attributes:
        compared: the experts, the uniform soup, the base if it was scored; those of `pair`; then the winner if it is
            none of them.
        missing: who should stand here and could not be scored, with the reason.
        passed_over: who scored better than the winner, and not by enough.
        pair: of `compared`, a recipe of compressed experts, and the same of the experts as they are; or nobody.
    """

    winner: Trial
    compared: tuple[Trial, ...]
    missing: dict[str, str]
    pair: tuple[Trial, ...] = ()
    passed_over: PassedOver | None = None


@dataclass(frozen=True)
class Unmeasured:
    """These evaluations must be done before the finalists are known."""

    evaluation_ids: tuple[int, ...]


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
    preferred = recommended(store, study, trials)
    order = preferred.order
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
            passed = preferred.passed_over if trial is order[0] else None
            return _beside(store, study, trials, Finalists(trial, compared, missing, passed_over=passed))
        missing.setdefault(trial.origin if trial in baselines else _name(trial), why)
    told = "; ".join(f"{who}: {why}" for who, why in missing.items())
    raise HoldoutFailed(f"no candidate could be scored on the holdout ({told}); mend that and run the study again")


def _beside(store: Store, study: Study, trials: Sequence[Trial], found: Finalists) -> Finalists | Unmeasured:
    """The finalists with those who stand beside the winner, and the winner last."""
    pair: tuple[Trial, ...] = ()
    missing = found.missing | {_name(t): t.why or t.state for t in trials if is_twin(t) and t.value is None}
    for asked in pairs(store, study, trials, found.winner):
        held = [(t, holdout_evaluation(store, study, t)) for t in asked]
        if waiting := tuple(sorted(e.id for _, e in held if e.outcome is None)):
            return Unmeasured(waiting)
        reasons = {_name(t): why for t, evaluation in held if (why := _why_unscored(evaluation)) is not None}
        if not reasons:
            pair = asked
            break
        missing |= reasons
    beside = [t for t in pair if t != found.winner]
    last = [] if found.winner in found.compared else [found.winner]
    return replace(found, compared=(*found.compared, *beside, *last), pair=pair, missing=missing)


def _name(trial: Trial) -> str:
    return f"trial {trial.number} ({trial.origin})"


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
