"""From an evaluation's id to its outcome in the database: what every worker does, whoever feeds it. No torch here."""

import logging
import random
import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from db.documents import REHEARSAL
from db.faults import fault_point
from db.records import Lease
from db.session import is_away
from db.store import Store
from evaluation.result import Failed, Infeasible, Scored
from evaluation.wanted import Wanted
from merging.errors import MergesearchError
from merging.recipe import Recipe
from workers.benches import Bench, Benches, DeviceLost, Impossible
from workers.heart import Beat, Heart, LeaseLost

DEVICE_LOST = 70  # exit code of a process that can do no more
CLAIM_SECONDS = 5.0  # how long a database that is away is waited for; the message is sent again later anyway
_log = logging.getLogger(__name__)
_T = TypeVar("_T")


class Unworkable(Exception):
    """A study cannot be worked on here; it is no fault of the candidate, and elsewhere it may be possible."""


class Evaluator:
    """Does evaluations, one at a time.

    Args:
        owner: whose the leases are.
        refusal: seconds for which a study is left to others after it could not be opened here: a machine without
            the models fails faster than the others score, and would use up every candidate's attempts.
    """

    def __init__(self, store: Store, benches: Benches, heart: Heart, owner: str, refusal: float = 0.0) -> None:
        self._store, self._benches, self._heart, self._owner = store, benches, heart, owner
        self._refusal = refusal
        self._refused: dict[int, float] = {}  # until when, by study

    def evaluate(self, evaluation_id: int) -> bool:
        """Do that evaluation, if it is still to be had.

        Returns:
            Whether an outcome was written by this call.

        Raises:
            DeviceLost: this process can do no more. The evaluation is queued again.
            Exception: the database stays away, as its driver says it.
        """
        if self._refused and self._is_refused(evaluation_id):
            return False
        seconds, claim = self._heart.seconds, self._store.evaluations.claim
        lease = patiently(lambda: claim(evaluation_id, self._owner, seconds), CLAIM_SECONDS)
        if lease is None:
            _log.debug("nothing to do", extra={"action": "evaluation.passed", "evaluation": evaluation_id})
            return False
        fault_point("worker.claimed")
        about = {"study": lease.study_id, "evaluation": lease.evaluation_id, "attempt": lease.attempt}
        _log.info("evaluation begun", extra={"action": "evaluation.begun", **about})
        try:
            with self._heart.beating(lease) as beat:
                outcome = attempt(self._benches, lease, partial(self._wanted, lease), beat)
        except Unworkable as error:
            _log.error("the study cannot be worked on here: %s", error, extra={"action": "study.refused", **about})
            self._refused[lease.study_id] = time.monotonic() + self._refusal
            outcome = Failed(why=str(error), retryable=True)
        except LeaseLost:
            _log.warning("the lease was lost", extra={"action": "evaluation.lost", **about})
            return False
        except DeviceLost as error:
            _log.error("the device is lost: %s", error, extra={"action": "device.lost", **about})
            self._finish(lease, Failed(why=f"the device was lost ({error})", retryable=True))
            raise
        written = self._finish(lease, outcome)
        fault_point("worker.finished")
        said = {"action": "evaluation.done" if written else "evaluation.refused", "outcome": outcome.kind, **about}
        _log.info("evaluation done" if written else "its outcome came too late", extra=said)
        return written

    def _is_refused(self, evaluation_id: int) -> bool:
        now = time.monotonic()
        self._refused = {study: until for study, until in self._refused.items() if until > now}
        return patiently(lambda: self._store.evaluations.study_of(evaluation_id), CLAIM_SECONDS) in self._refused

    def _wanted(self, lease: Lease, device: str) -> Wanted:
        wanted, rehearsal = self._store.evaluations.wanted, device == REHEARSAL
        return patiently(lambda: wanted(lease, rehearsal=rehearsal), CLAIM_SECONDS)

    def _finish(self, lease: Lease, outcome: Scored | Infeasible | Failed) -> bool:
        """Write the outcome, for as long as the lease may last: doing the work again costs more than waiting."""
        finish = self._store.evaluations.finish
        return patiently(lambda: finish(lease, outcome), self._heart.seconds)


def attempt(
    benches: Benches, lease: Lease, wanted: Callable[[str], Wanted], beat: Beat
) -> Scored | Infeasible | Failed:
    """Evaluate, and turn whatever goes wrong into a result with its reason.

    Args:
        wanted: asked for what the evaluation must have on a bench's device, once the study is open.

    Raises:
        Unworkable: the study's models or tasks cannot be opened here, or have changed.
        LeaseLost: from `beat`, passed on.
        DeviceLost: passed on.
    """
    try:
        try:
            bench = benches.bench(lease.study_id)
        except MergesearchError as error:
            raise Unworkable(str(error)) from error
        return evaluate(bench, lease.recipe, wanted(bench.device), beat)
    except (Unworkable, LeaseLost, DeviceLost):
        raise
    except MergesearchError as error:
        return Failed(why=str(error))
    except (MemoryError, OSError) as error:
        return Failed(why=_reason(error), retryable=True)
    except Exception as error:  # a candidate must never take the worker down
        _log.exception("an unexpected error", extra={"action": "evaluation.broke", "evaluation": lease.evaluation_id})
        return Failed(why=_reason(error), retryable=is_away(error))


def evaluate(bench: Bench, recipe: Recipe, wanted: Wanted, beat: Beat) -> Scored | Infeasible:
    """Build the candidate in place and score it on what is missing; if nothing is, it need not be built.

    Args:
        beat: told how far it is; what it raises ends the evaluation.
    """
    started = time.perf_counter()
    every = sum(map(len, wanted.documents.values()))

    def measuring(done: int, total: int) -> None:
        fault_point("worker.measuring")
        beat(wanted.reused, every, None, (done, total))

    def progress(done: int, total: int, tokens: int) -> None:
        fault_point("worker.scoring")
        beat(done, total, tokens / max(time.perf_counter() - built, 1e-9))

    try:
        if wanted.missing:
            bench.build(recipe, measuring)
        built = time.perf_counter()
        fault_point("worker.built")
        scores, tokens = bench.score(wanted, progress)
    except Impossible as error:
        return Infeasible(why=str(error))
    return Scored(
        scores=scores,
        tokens=tokens,
        build_seconds=built - started,
        score_seconds=time.perf_counter() - built,
        device=bench.device,
        reused=wanted.reused,
    )


def patiently(call: Callable[[], _T], seconds: float) -> _T:
    """Call until the database answers, ever more slowly, for about that long."""
    deadline, pause = time.monotonic() + seconds, 0.1
    while True:
        try:
            return call()
        except Exception as error:
            if not is_away(error) or time.monotonic() + pause > deadline:
                raise
            _log.warning("the database is away: %s", error, extra={"action": "database.away"})
        time.sleep(pause * random.uniform(0.75, 1.25))  # many workers wait for the same server
        pause = min(pause * 2, 2.0)


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
