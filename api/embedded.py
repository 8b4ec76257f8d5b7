"""The embedded default: one study from file to verdict, with a SQLite file and worker processes, no service.

Everything is checked before anything is created. A run that was killed goes on when it is started again: the
rows say how far it came.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from api.creating import create_or_resume
from api.locks import only_runner
from api.prepared import Prepared
from db.records import Lead, Study, Trial
from db.store import Store
from evaluation.suite import Suite
from merging.errors import InvalidInput
from search.appraisal import reach_verdict
from search.controller import Search, Told
from search.course import Course, Finished
from search.finalists import HoldoutFailed
from search.mirror import Mirror, mirror_url
from search.opening import open_search
from search.references import SearchFailed
from search.space import space_of
from search.stopping.ended import Ended
from search.stopping.resuming import is_over
from search.twins import searched
from search.verdict import Verdict
from workers.host import owner_name
from workers.pool import Pool


@dataclass(frozen=True)
class Watcher:
    """Who is told how a run goes on.

    Attributes:
        phase: what is being done now.
        resumed: the trials that an earlier run left, if any.
        told: a trial ended.
        documents: an evaluation's id, its documents done and their total.
        warning: something beside the point went wrong; the run goes on.
        ended: the search is over, and why.
    """

    phase: Callable[[str], None]
    resumed: Callable[[Sequence[Trial]], None]
    told: Callable[[Told], None]
    documents: Callable[[int, int, int], None]
    warning: Callable[[str], None]
    ended: Callable[[Ended], None] = lambda ended: None


def run_study(prepared: Prepared, store: Store, home: Path, devices: tuple[str, ...], watcher: Watcher) -> Verdict:
    """Search to the end and judge the winner, from wherever the study stands.

    Args:
        devices: torch names; a worker each.

    Raises:
        Conflict: it is being run by another process, or exists with other settings.
        SearchFailed: nothing could be scored.
        HoldoutFailed: nobody could be scored on the holdout.
        InvalidInput: what the study asks for does not go with its scores.
    """
    spec = prepared.spec
    with only_runner(home, spec.name):
        study = create_or_resume(prepared, store)
        if is_over(study, spec, store.trials.all(study.id), store.studies.documents(study.id)):
            return Verdict.model_validate(study.verdict)
        store.studies.reopen(study.id, spec.to_json())
        study = store.studies.by_id(study.id)  # it may have more trials now
        store.evaluations.release_all(study.id)  # whoever held a lease is dead: we hold the lock
        store.evaluations.retry_failed(study.id)
        lead = store.leads.seize(study.id, owner_name())
        try:
            return _search(prepared, study, lead, store, home, devices, watcher)
        except (SearchFailed, HoldoutFailed, InvalidInput) as error:
            store.studies.fail(lead, str(error))
            raise


def _search(
    prepared: Prepared,
    study: Study,
    lead: Lead,
    store: Store,
    home: Path,
    devices: tuple[str, ...],
    watcher: Watcher,
) -> Verdict:
    spec = prepared.spec
    mirror = Mirror(mirror_url(store.url, home), study, space_of(study), store, watcher.warning)
    earlier = store.trials.all(study.id)
    mirror.sync()
    if earlier:
        watcher.resumed(searched(earlier))

    def told(event: Told) -> None:
        watcher.told(event)
        mirror.sync()

    # more open trials than workers would only be proposed from older knowledge
    parallel, space = min(spec.search.parallel, len(devices)), space_of(study)
    search = Search(study, spec, parallel, space, *open_search(spec, space, study.setup), told, on_ended=watcher.ended)
    with Pool(store, study.id, devices, home / "logs" / spec.name, watcher.documents) as pool:
        course = Course(search, lead, store, pool.announce, watcher.phase)
        finished = course.run(pool)
    verdict = judge(prepared.suite, store, study, finished)
    store.studies.finish(lead, verdict.model_dump(mode="json", by_alias=True))
    mirror.finish()
    mirror.close()
    return verdict


def judge(suite: Suite, store: Store, study: Study, finished: Finished) -> Verdict:
    """The verdict on a study whose finalists are measured."""
    return reach_verdict(store, study, finished.finalists, suite.aggregations(), finished.trials)
