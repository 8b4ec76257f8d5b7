"""The embedded default: one study from file to verdict, with a SQLite file and worker processes, no service.

Everything is checked before anything is created. A run that was killed goes on when it is started again: the
rows say how far it came.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from api.documents import Plan, plan_documents
from api.fitting import Fitted, compression, fitted
from api.locks import only_runner
from api.planning import decided, has_answers
from api.starting import given_recipes, require_trials, with_starts
from db.records import DocumentSet, Lead, Study, Trial
from db.store import Store
from evaluation.chat import template_folder
from evaluation.live import check_loads
from evaluation.result import Part
from evaluation.suite import Suite
from merging.errors import Conflict, InvalidInput
from merging.fingerprint import FingerprintCache
from merging.models import ModelSet
from merging.profiling import profile
from search.appraisal import reach_verdict
from search.controller import Search, Told
from search.course import Course, Finished
from search.finalists import HoldoutFailed
from search.mirror import Mirror, mirror_url
from search.opening import fixed_starts, open_search
from search.planning import planned
from search.predecessors import KEY, find_predecessors
from search.references import SearchFailed
from search.space import Space, make_space, space_of
from search.starts.start import Start
from search.stopping.ended import Ended
from search.stopping.enough import require_documents
from search.stopping.resuming import is_over
from search.study import StudySpec
from search.twins import searched
from search.verdict import Verdict
from workers.host import owner_name
from workers.pool import Pool

ROOT = Path("/")  # the folders of a located study are absolute


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


@dataclass(frozen=True)
class Prepared:
    """A study that was checked in full: it can be created and run."""

    spec: StudySpec
    suite: Suite
    documents: dict[tuple[str, Part], DocumentSet]
    space: Space
    starts: tuple[Start, ...]
    setup: dict[str, Any]
    packed: Fitted | None = None


class Fingerprinted:
    """Fingerprints found before there is a database, on top of those it remembers already."""

    def __init__(self, known: FingerprintCache | None) -> None:
        self._known = known
        self._found: dict[str, str] = {}

    def get(self, key: str) -> str | None:
        """A remembered fingerprint, or None."""
        return self._found.get(key) or (self._known.get(key) if self._known else None)

    def put(self, key: str, fingerprint: str) -> None:
        """Remember a fingerprint until `save`."""
        self._found[key] = fingerprint

    def save(self, to: FingerprintCache) -> None:
        """Hand over what was found."""
        for key, fingerprint in self._found.items():
            to.put(key, fingerprint)


def prepare(spec: StudySpec, cache: FingerprintCache) -> Prepared:
    """Open and check everything a study names; nothing is created but packed experts, where it compresses them.

    Raises:
        InvalidInput: a model, a task or a setting cannot work.
    """
    experts = {e.name: Path(e.path) for e in spec.models.experts}
    where = {"tokenizer": spec.models.tokenizer, "tokenizer_key": "models.tokenizer"}
    models = ModelSet.open(Path(spec.models.base), experts, cache=cache, **where)
    layer_count = models.layout.layer_count
    suite = load_suite(spec)
    by = compression(spec, models)
    choice = decided(spec, models, suite)
    space = make_space(planned(spec, choice), layer_count, suite.tuning_digest, by)
    given = {origin: found.to_json() for origin, found in given_recipes(spec, space, models.layout).items()}
    open_search(spec, space)
    require_trials(spec, fixed_starts(spec, space, {"starts": given}))
    plan = plan_documents(spec, suite, models.companions_digest)
    require_documents(spec, fixed_starts(spec, space, {"starts": given}), plan.sets)
    check_loads(Path(spec.models.base), models.base.names)
    packed = fitted(spec, models, by) if by else None  # last: it may take minutes
    setup = _setup(spec, models, suite, plan) | ({"plan": choice.model_dump(mode="json")} if choice else {})
    setup["starts"] = given
    if packed is not None:
        setup["compressed"] = packed.to_json()
    begin, _ = open_search(spec, space, setup)
    return Prepared(spec, suite, plan.sets, space, begin, setup, packed)


def _setup(spec: StudySpec, models: ModelSet, suite: Suite, plan: Plan) -> dict[str, Any]:
    """What a study is made of, and what was found out about it; kept with it from its first moment on."""
    return {
        "fingerprints": dict(models.fingerprints),  # reads every byte, and refuses NaN
        "companions": models.companions_digest,
        "layer_count": models.layout.layer_count,
        "split_key": split_key(spec),
        "suite_digest": suite.digest,
        "tuning_digest": suite.tuning_digest,
        "task_digests": dict(suite.task_digests),
        "shots": {task.name: task.config.get("num_fewshot") for task in suite.tasks},
        "rungs": list(plan.rungs),
        "aggregations": plan.aggregations,
        "proxy": plan.proxied,
        "answers": has_answers(suite),
        "profile": profile(models).model_dump(mode="json"),
    }


def load_suite(spec: StudySpec) -> Suite:
    """The tasks of a located study, split as it splits them."""
    chat = None
    if spec.evaluation.chat_template:
        experts = {e.name: Path(e.path) for e in spec.models.experts}
        chat = template_folder(Path(spec.models.base), experts, spec.models.tokenizer)
    return Suite.load(spec.evaluation, ROOT, split_key(spec), chat)


def split_key(spec: StudySpec) -> str:
    """What keys the split of a study's documents."""
    return f"split:{spec.search.seed}"


def create_or_resume(prepared: Prepared, store: Store) -> Study:
    """The study's row: a new one, or the one of that name if it is the same study.

    Raises:
        Conflict: the name belongs to a different study, or its models or tasks have changed.
    """
    spec = prepared.spec
    found = store.studies.find(spec.name)
    if found is None:
        return create(prepared, store)
    if found.frozen_digest != spec.frozen_digest():
        raise Conflict(
            f"a study named {spec.name!r} exists with other settings; only search.trials, search.budget, search.stop, "
            "search.parallel, search.pool and evaluation.batch_size may change: give this one another name, or --home "
            "another folder"
            f"{_new_experts(found, spec)}"
        )
    require_unchanged(found, prepared.setup)
    return found


def _new_experts(study: Study, spec: StudySpec) -> str:
    """What to say where a policy has found experts that were not there when the study began."""
    known = {expert["path"] for expert in study.spec["models"]["experts"]}
    new = [expert.name for expert in spec.models.experts if expert.path not in known and expert.policy is not None]
    return f" ({', '.join(new)} were found since; list the old experts by path and name to go on)" if new else ""


def create(prepared: Prepared, store: Store, about: Mapping[str, Any] | None = None) -> Study:
    """The row of a new study, with all that it begins with.

    Args:
        about: what its setup says beside what was found out.

    Raises:
        NameTaken: there is a study of that name.
    """
    spec = prepared.spec
    setup = with_starts(prepared.setup, spec, prepared.space, store) | dict(about or {})
    setup[KEY] = find_predecessors(store, spec, prepared.documents)
    return store.studies.create(spec.name, spec.to_json(), spec.frozen_digest(), setup, prepared.documents)


_TIES = {
    "fingerprints": "the models' weights",
    "companions": "the base's config or tokenizer",
    "suite_digest": "the tasks (or lm-eval's version)",
    "task_digests": "the tasks' data or Python files",
    "compressed": "what the experts are compressed to",
}


def require_unchanged(study: Study, setup: Mapping[str, Any]) -> None:
    """See that what a study is made of is what it was: scores from before and after would not compare.

    Raises:
        Conflict: something has changed; the message says what.
    """
    was = study.setup
    known = {key: what for key, what in _TIES.items() if key in was}  # an earlier version wrote down fewer
    changed = [what for key, what in known.items() if was[key] != setup.get(key)]
    if changed:
        raise Conflict(
            f"{' and '.join(changed)} of study {study.name!r} have changed since it began; "
            "put them back, or give the study a new name"
        )


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
