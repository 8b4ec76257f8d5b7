"""The clerks of a controller: processes that do desk work, which needs torch and lm-eval and takes its time.

A *check* opens what a submission names and creates the study; a *judge* compares the finalists; an *export*
writes a checkpoint. Jobs are leased rows: what a killed clerk leaves is done by the next.
"""

import logging
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from api.rest.problems import content_of, failure
from api.service.logs import set_up_logs
from db.records import JobLease
from db.session import is_away
from db.store import Store, connect_store
from db.studies import NameTaken
from db.wakeups import CLERK
from merging.errors import Conflict, MergesearchError
from workers.host import cores, die_with_parent
from workers.torch_setup import prepare_torch

LEASE_SECONDS = 60.0
_LOOK_SECONDS = 10.0  # the longest that a job nobody announced waits

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ClerkSettings:
    """What a clerk process needs to know.

    Attributes:
        name: no other clerk has it.
        kinds: the jobs it does: `check`, `judge`, `export`.
        exports: the folder that exports are written to.
    """

    name: str
    database_url: str
    kinds: tuple[str, ...]
    exports: Path
    log_format: str


def clerk_main(settings: ClerkSettings) -> None:
    """The process's main function; ends with its parent."""
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends us
    set_up_logs(settings.log_format)
    Clerk(connect_store(settings.database_url), settings).run()


class Clerk:
    """Does jobs one after the other."""

    def __init__(self, store: Store, settings: ClerkSettings) -> None:
        self._store, self._settings = store, settings
        self._name = settings.name
        self._work: dict[str, Callable[[JobLease], dict[str, Any]]] = {
            "check": self._check,
            "judge": self._judge,
            "export": self._export,
        }

    def run(self) -> None:
        """Do jobs for ever."""
        wakeups = self._store.wakeups(CLERK)
        while True:
            try:
                self._store.processes.beat(self._name, "clerk", {"kinds": list(self._settings.kinds)})
                while self.once(self._settings.kinds):
                    pass
            except Exception as error:
                if not is_away(error):
                    raise
                log.warning("the database is away (%s)", type(error).__name__)
            if not wakeups.wait(_LOOK_SECONDS) and "check" in self._settings.kinds:
                prepare_torch(threads=cores())  # now, so that who submits a study does not wait for it

    def once(self, kinds: Sequence[str]) -> bool:
        """Do the oldest job there is; False if there is none."""
        lease = self._store.jobs.claim_next(kinds, self._name, LEASE_SECONDS)
        if lease is None:
            return False
        extra = {"job": lease.job.id}
        log.info("%s begins", lease.job.kind, extra=extra)
        try:
            with self._beating(lease):
                prepare_torch(threads=cores())
                result = self._work[lease.job.kind](lease)
        except MergesearchError as error:
            log.warning("%s refused: %s", lease.job.kind, error, extra=extra)
            content = content_of(error)
            self._store.jobs.refuse(lease, content if content["status"] != 500 else content | {"detail": str(error)})
        except Exception as error:
            if is_away(error):
                raise
            log.exception("%s failed", lease.job.kind, extra=extra)
            self._store.jobs.refuse(lease, failure())
        else:
            self._store.jobs.finish(lease, result)
            log.info("%s done", lease.job.kind, extra=extra)
        return True

    def _check(self, lease: JobLease) -> dict[str, Any]:
        from api.creating import create
        from api.prepared import prepare
        from search.study import parse_study

        spec = parse_study(lease.job.content["spec"])
        found = self._store.studies.find(spec.name)
        if found is not None:
            if found.setup.get("submission") == lease.job.id:  # an earlier attempt at this very job came so far
                return {"study": spec.name}
            raise NameTaken(spec.name)
        create(prepare(spec, self._store.fingerprints), self._store, {"submission": lease.job.id})
        return {"study": spec.name}

    def _judge(self, lease: JobLease) -> dict[str, Any]:
        from api.embedded import judge
        from api.prepared import load_suite
        from search.course import Finished
        from search.finalists import Unmeasured, find_finalists
        from search.study import StudySpec

        assert lease.job.study_id is not None, "a verdict is on a study"
        study = self._store.studies.by_id(lease.job.study_id)
        spec = StudySpec.model_validate(study.spec)
        suite = load_suite(spec)
        if not suite.is_of(study.setup):
            raise Conflict(f"the tasks of study {study.name!r} have changed since it began; put them back")
        trials = self._store.trials.all(study.id)
        found = find_finalists(self._store, study, trials, tuple(e.name for e in spec.models.experts))
        assert not isinstance(found, Unmeasured), "a study is judged once its finalists are measured"
        verdict = judge(suite, self._store, study, Finished(trials, found))
        return verdict.model_dump(mode="json", by_alias=True)

    def _export(self, lease: JobLease) -> dict[str, Any]:
        from api.service.exports import write_export

        return write_export(self._store, lease.job, self._settings.exports)

    @contextmanager
    def _beating(self, lease: JobLease) -> Iterator[None]:
        """Keep the lease from a thread while the block goes on."""
        over = threading.Event()

        def beat() -> None:
            while not over.wait(LEASE_SECONDS / 3):
                try:
                    self._store.jobs.renew(lease, LEASE_SECONDS)
                    self._store.processes.beat(self._name, "clerk", {"kinds": list(self._settings.kinds)})
                except Exception:  # a database that is away for a moment; the lease outlives a missed beat
                    log.warning("a beat was missed", extra={"job": lease.job.id})

        thread = threading.Thread(target=beat, name="clerk's heart", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
