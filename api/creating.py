"""The row of a study: made once, with all that the study begins with, and found again if it is the same study."""

from collections.abc import Mapping
from typing import Any

from api.prepared import Prepared
from api.starting import with_starts
from db.records import Study
from db.store import Store
from merging.errors import Conflict
from search.predecessors import KEY, find_predecessors
from search.study import StudySpec


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
