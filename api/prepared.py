"""A study that was checked in full: everything it names was opened, and it can be created and run."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from api.documents import Plan, plan_documents
from api.fitting import Fitted, compression, fitted
from api.planning import decided, has_answers
from api.starting import given_recipes, require_trials
from db.records import DocumentSet
from evaluation.chat import template_folder
from evaluation.live import check_loads
from evaluation.result import Part
from evaluation.suite import Suite
from merging.fingerprint import FingerprintCache
from merging.models import ModelSet
from merging.profiling import profile
from search.opening import fixed_starts, open_search
from search.planning import planned, with_course
from search.space import Space, make_space
from search.starts.start import Start
from search.stopping.enough import require_documents
from search.study import StudySpec

ROOT = Path("/")  # the folders of a located study are absolute


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
    setup = _setup(spec, models, suite, plan)
    if choice is not None:
        told = with_course(choice, spec, plan.rungs, proxied=plan.proxied)
        setup["plan"] = told.model_dump(mode="json")
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
