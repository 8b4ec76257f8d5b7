"""The trials that others are compared with: found before anything is told; a study in which they fail, fails."""

from collections.abc import Sequence

from db.records import Trial
from db.store import Store
from evaluation.result import Failed, Infeasible, Scored
from merging.errors import MergesearchError
from search.judge import Judge
from search.standings import judged


class SearchFailed(MergesearchError):
    """Nothing could be scored."""


def find_references(store: Store, study_id: int, judge: Judge, ready: Sequence[Trial], starts: int) -> bool:
    """Tell the judge the scores that others are compared with; whether all are known.

    Args:
        ready: trials that are evaluated and not told.
        starts: how many the study begins with; the references are among them.

    Raises:
        SearchFailed: one of them could not be scored.
    """
    done = {t.number for t in ready}
    for trial in store.trials.page(study_id, None, starts):
        if trial.origin not in judge.needs or (trial.state == "open" and trial.number not in done):
            continue
        outcome = None if trial.evaluation_id is None else store.evaluations.get(trial.evaluation_id).outcome
        if not isinstance(outcome, Scored):
            why = outcome.why if isinstance(outcome, Infeasible | Failed) else trial.why or "it was not scored"
            # what failed is tried again, what is infeasible or was called off is not
            again = "again" if trial.state == "open" and isinstance(outcome, Failed) else "under another name"
            problem = "could not be scored, which the study compares with"
            raise SearchFailed(f"{trial.origin} {problem}: {why}; mend that, then run the study {again}")
        judge.refer(trial.origin, judged(outcome.scores))
    return judge.ready


def is_grounded(store: Store, study_id: int, starts: int) -> bool:
    """Whether the starts that were tried are all told, and one has scores: if none has, the rest would only burn time.

    Raises:
        SearchFailed: they are told, and none has.
    """
    tried = store.trials.page(study_id, None, starts)
    if any(t.state == "open" for t in tried):
        return False
    if tried and not any(t.state in ("complete", "pruned") for t in tried):
        raise SearchFailed(
            f"none of the {len(tried)} starts could be scored: {tried[0].why}; "
            "mend that, then run the study under another name"
        )
    return True
