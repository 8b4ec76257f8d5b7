"""Who stands in the final comparison: the baselines and the winner, scored on the holdout.

Only here are holdout documents scored. Who wins was decided before, on the search documents; the holdout
changes that in one case: a winner that cannot be scored on it gives way to the next best, and the report says so.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from db.records import Study, Trial
from db.store import Store
from evaluation.result import Failed, Infeasible, Scored
from merging.errors import MergesearchError
from search.dispatch import Dispatcher
from search.starts import UNIFORM, expert_origin


class HoldoutFailed(MergesearchError):
    """No candidate could be scored on the holdout."""


@dataclass(frozen=True)
class Finalists:
    """The candidates of the report, all scored on the holdout.

    Attributes:
        compared: the experts, the uniform soup, then the winner if it is none of them.
        missing: who should stand here and could not be scored, with the reason.
    """

    winner: Trial
    compared: tuple[Trial, ...]
    missing: dict[str, str]


def ranking(trials: Sequence[Trial]) -> list[Trial]:
    """The complete trials, best first; of equals the earliest first, so that a baseline precedes its copy."""
    complete = [t for t in trials if t.value is not None]
    return sorted(complete, key=lambda t: (-(t.value or 0.0), t.number))


def measure_finalists(
    store: Store, study: Study, trials: Sequence[Trial], experts: Sequence[str], dispatcher: Dispatcher
) -> Finalists:
    """Have the finalists scored on the holdout. What failed there in an earlier run is tried again.

    Args:
        trials: all trials of the study, every one told.

    Raises:
        HoldoutFailed: nobody could be.
    """
    tried: set[int] = set()
    origins = [*(expert_origin(name) for name in experts), UNIFORM]
    found = {t.origin: t for t in reversed(trials) if t.origin in origins}
    missing = {origin: t.why or t.state for origin, t in found.items() if t.value is None}
    baselines = [found[origin] for origin in origins if origin in found and origin not in missing]
    _score(store, study, [*baselines, *ranking(trials)[:1]], dispatcher, tried)
    compared = []
    for trial in baselines:
        why = _unscored(store, study, trial)
        if why is None:
            compared.append(trial)
        else:
            missing[trial.origin] = why
    for trial in ranking(trials):
        _score(store, study, [trial], dispatcher, tried)
        why = _unscored(store, study, trial)
        if why is None:
            return Finalists(trial, (*compared, *([] if trial in compared else [trial])), missing)
        missing.setdefault(trial.origin if trial in baselines else f"trial {trial.number} ({trial.origin})", why)
    reasons = "; ".join(f"{who}: {why}" for who, why in missing.items())
    raise HoldoutFailed(f"no candidate could be scored on the holdout ({reasons}); mend that and run the study again")


def holdout_id(store: Store, study: Study, trial: Trial) -> int:
    """The evaluation of a trial's recipe on the holdout, queued if there was none."""
    assert trial.evaluation_id is not None, "a complete trial was evaluated"
    searched = store.evaluations.get(trial.evaluation_id)
    held, _ = store.evaluations.want(study.id, searched.recipe, searched.recipe_digest, "holdout")
    return held.id


def _score(store: Store, study: Study, trials: Sequence[Trial], dispatcher: Dispatcher, tried: set[int]) -> None:
    """Have the trials scored, unless this run has tried them before."""
    wanted = {holdout_id(store, study, trial) for trial in trials} - tried
    tried |= wanted
    for evaluation_id in wanted:
        store.evaluations.retry_failed(evaluation_id)
    dispatcher.announce(sorted(wanted))
    while store.evaluations.unfinished(study.id):
        dispatcher.wait(1.0)


def _unscored(store: Store, study: Study, trial: Trial) -> str | None:
    """Why the trial has no holdout score; None if it has one."""
    outcome = store.evaluations.get(holdout_id(store, study, trial)).outcome
    if isinstance(outcome, Scored):
        return None
    assert isinstance(outcome, Infeasible | Failed), "waited for"
    return outcome.why
