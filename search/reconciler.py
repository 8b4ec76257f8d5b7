"""The service's controller: leads the studies nobody leads and takes each of them on, round by round.

Any number of processes may do this at once: a lease on the study's row elects one for each study. All that one
knows it has read from the database, so it can be killed at any line; whoever takes a study over replays it.
"""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from db.faults import fault_point
from db.jobs import judging
from db.leads import LED, LeadLost
from db.records import Lead, Study
from db.session import is_away
from db.store import Store
from merging.errors import InvalidInput
from search.controller import Search
from search.course import Course
from search.dispatch import Publish
from search.finalists import HoldoutFailed
from search.keeper import Keeper
from search.opening import open_search
from search.references import SearchFailed
from search.space import space_of
from search.study import StudySpec

LONGEST_WAIT = 5.0  # between two rounds in which nobody woke us
_BEHIND = 0.1  # an expired lease is looked for this long after its time
_FIRST_BACKOFF, _LAST_BACKOFF = 1.0, 60.0

log = logging.getLogger(__name__)


@dataclass
class _Led:
    """A study that this process leads."""

    lead: Lead
    course: Course | None = None
    over: bool = False  # only the verdict is missing
    failures: int = 0
    not_before: float = 0.0


class Reconciler:
    """Leads studies and takes them on.

    Args:
        publish: told what waits for a worker, over and over until it is taken.
        keeper: holds the leads.
        on_change: told the id of a study of which a trial was told, or that this process leads no more.
    """

    def __init__(self, store: Store, publish: Publish, keeper: Keeper, on_change: Callable[[int], None]) -> None:
        self._store, self._publish, self._keeper, self._on_change = store, publish, keeper, on_change
        self._led: dict[int, _Led] = {}
        self._asks, self._ask_seconds = 0, 0.0

    def round(self) -> float:
        """Do all that can be done now.

        Returns:
            The seconds after which the next round is due, if nobody wakes us before.
        """
        for study_id in self._store.leads.vacant():
            lead = self._keeper.take(study_id)
            if lead is not None:
                log.info("leading", extra={"study": study_id})
                self._led[study_id] = _Led(lead)
        fault_point("controller.leading")
        if swept := self._store.evaluations.sweep():
            log.warning("leases expired of evaluations %s", list(swept))
        self._store.jobs.sweep()
        fault_point("controller.swept")
        for study_id in tuple(self._led):
            self._advance(study_id)
        self._publish(self._store.evaluations.queued(), all_queued=True)
        self._count()
        expiry = self._store.evaluations.seconds_to_next_expiry()
        due = [LONGEST_WAIT, *([] if expiry is None else [expiry + _BEHIND])]
        due += [led.not_before - time.monotonic() for led in self._led.values() if led.not_before]
        return max(0.05, min(due))

    def forget(self) -> None:
        """Drop all that is in memory; the leads are kept, and the next round replays what it needs."""
        for led in self._led.values():
            led.course, led.over = None, False

    def _advance(self, study_id: int) -> None:
        led = self._led[study_id]
        study = self._store.studies.by_id(study_id)
        if not self._keeper.holds(led.lead) or study.state not in LED:
            self._drop(study_id)
            return
        if time.monotonic() < led.not_before:
            return
        try:
            self._step_or_fail(led, study)
            led.failures, led.not_before = 0, 0.0
        except LeadLost:
            log.warning("another leads it now, or it is over", extra={"study": study.name})
            self._drop(study_id)
        except Exception as error:
            if is_away(error):
                raise
            led.course, led.over = None, False
            led.failures += 1
            wait = min(_FIRST_BACKOFF * 2 ** (led.failures - 1), _LAST_BACKOFF)
            led.not_before = time.monotonic() + wait
            log.exception("a step failed; again in %.0f s", wait, extra={"study": study.name})

    def _step_or_fail(self, led: _Led, study: Study) -> None:
        try:
            self._step(led, study)
        except (SearchFailed, HoldoutFailed, InvalidInput) as error:
            log.warning("failed: %s", error, extra={"study": study.name})
            self._store.studies.fail(led.lead, str(error))
            self._drop(study.id)

    def _step(self, led: _Led, study: Study) -> None:
        if led.course is None:
            led.course = self._course(study, led.lead)
            self._on_change(study.id)  # who led it before may not have come so far
        if not led.over and led.course.step(adding=study.state == "running") is not None:
            led.over = True
            self._on_change(study.id)
        if led.over and study.state == "running":
            self._judge(study, led.lead)

    def _judge(self, study: Study, lead: Lead) -> None:
        """Have the verdict reached, once, by somebody with lm-eval at hand; finish the study with it."""
        fault_point("controller.judging")
        job = self._store.jobs.add("judge", {}, study_id=study.id, idempotency=judging(study.id))
        if job.state == "failed":
            problem = (job.problem or {}).get("detail", "no reason was given")
            self._store.studies.fail(lead, f"the verdict could not be reached: {problem}")
            self._drop(study.id)
        elif job.state == "done" and job.result is not None:
            fault_point("controller.finishing")
            self._store.studies.finish(lead, job.result)
            fault_point("controller.finished")
            log.info("finished", extra={"study": study.name})
            self._drop(study.id)

    def _course(self, study: Study, lead: Lead) -> Course:
        spec = StudySpec.model_validate(study.spec)
        space = space_of(study)
        begin, strategy = open_search(spec, space, study.setup)
        search = Search(
            study,
            spec,
            spec.search.parallel,
            space,
            begin,
            strategy,
            on_told=lambda told: self._on_change(study.id),
            on_asked=self._asked,
            on_ended=lambda ended: log.info("the search ended: %s", ended.why, extra={"study": study.name}),
        )
        pool = spec.search.pool

        def announce(ids: Sequence[int]) -> None:
            self._publish([(id_, pool) for id_ in ids], all_queued=False)

        return Course(search, lead, self._store, announce)

    def _asked(self, seconds: float) -> None:
        self._asks += 1
        self._ask_seconds += seconds

    def _count(self) -> None:
        if self._asks:
            self._store.metrics.add(asks=self._asks, ask_seconds=self._ask_seconds)
            self._asks, self._ask_seconds = 0, 0.0

    def _drop(self, study_id: int) -> None:
        self._keeper.release(self._led.pop(study_id).lead)
        self._on_change(study_id)
