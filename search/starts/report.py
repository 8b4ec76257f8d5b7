"""What a study began with, as its verdict tells it: each start's score, and which was the best without a search."""

from collections.abc import Callable, Sequence

from db.records import Trial
from search.starts.start import is_start
from search.verdict import StartScore


def starts_of(
    trials: Sequence[Trial], ranked: Sequence[Trial], strategy: str, documents: int, worth: Callable[[Trial], float]
) -> tuple[StartScore, ...]:
    """The starts that have a score or an estimate: first the best of those scored in full, then by that number.

    Args:
        trials: all of the study.
        ranked: the complete ones, best first.
        strategy: the study's.
        documents: all that a trial can be scored on.
        worth: a complete trial's score.
    """
    best = next((t.number for t in ranked if is_start(t.origin, strategy)), None)
    found = [_start(t, documents, worth) for t in trials if is_start(t.origin, strategy) and _is_known(t)]
    return tuple(sorted(found, key=lambda start: (start.trial != best, -start.search, start.trial)))


def _is_known(trial: Trial) -> bool:
    return trial.value is not None or (trial.state == "pruned" and trial.estimate is not None)


def _start(trial: Trial, documents: int, worth: Callable[[Trial], float]) -> StartScore:
    if trial.value is not None:
        return StartScore(label=trial.origin, trial=trial.number, search=worth(trial), documents=documents, full=True)
    scored = trial.steps[-1].documents if trial.steps else 0
    estimate = trial.estimate or 0.0
    return StartScore(label=trial.origin, trial=trial.number, search=estimate, documents=scored, full=False)
