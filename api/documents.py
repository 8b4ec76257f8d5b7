"""The documents of a new study: the order in which they are scored, the rungs they make, and what names them."""

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from importlib.metadata import version

from db.records import DocumentSet
from evaluation.resampling import CLOSED
from evaluation.result import Part
from evaluation.spec import PROXY
from evaluation.suite import Suite
from merging.errors import InvalidStudy
from search.racing.rungs import plan_rungs, plan_sizes
from search.study import StudySpec


@dataclass(frozen=True)
class Plan:
    """How the documents of a study are scored.

    Attributes:
        sets: the documents of each task and part.
        rungs: how many search documents of the raced tasks each rung has; the last has all.
        proxied: whether the first rung is the proxy's, without any document of the tasks.
        aggregations: how a raced task makes one value of its items, by lm-eval's name.
    """

    sets: dict[tuple[str, Part], DocumentSet]
    rungs: tuple[int, ...]
    aggregations: dict[str, str]
    proxied: bool


def plan_documents(spec: StudySpec, suite: Suite, models: str) -> Plan:
    """The plan of a new study.

    Args:
        models: a digest of what, besides its recipe, makes a candidate what it is: the base's config and tokenizer.

    Raises:
        InvalidStudy: the study races, and a task's metric cannot be computed on fewer documents from its items.
    """
    counts = {task.name: len(suite.documents(task.name, "search")) for task in suite.tasks}
    raced = _raced(spec)
    names = {task: suite.aggregations()[task].name for task in raced}
    documents = sum(counts[task] for task in raced)
    totals = plan_rungs(spec.racing, documents, len(raced)) if _can_race(spec, names) else (documents,)
    proxied = spec.evaluation.proxy is not None and spec.racing != "off"
    sizes = plan_sizes({task: n for task, n in counts.items() if task != PROXY}, raced, totals)
    if proxied:  # a rung of its own, and on the others to be compared with the objective
        sizes = {task: (0, *own) for task, own in sizes.items()}
    if PROXY in counts:
        sizes[PROXY] = (counts[PROXY],) * (len(totals) + proxied)
    sets: dict[tuple[str, Part], DocumentSet] = {}
    for task in suite.tasks:
        digest = _digest(suite.task_digests[task.name], f"{models}|{spec.dtype}")
        sets[task.name, "search"] = DocumentSet(suite.order(task.name, "search"), sizes[task.name], digest)
        sets[task.name, "holdout"] = DocumentSet.whole(suite.order(task.name, "holdout"), digest)
    return Plan(sets, (0, *totals) if proxied else totals, names if len(totals) > 1 else {}, proxied)


def _raced(spec: StudySpec) -> list[str]:
    """The tasks that the objective or a constraint needs; the others are only reported, and scored at the end."""
    bounded = {c.task for c in spec.constraints}
    return [t.name for t in spec.evaluation.tasks if t.weight > 0 or t.name in bounded or None in bounded]


def _can_race(spec: StudySpec, aggregations: Mapping[str, str]) -> bool:
    """Whether the baselines' scores, found once, can be computed on the documents of any rung."""
    unfit = [task for task, name in aggregations.items() if name not in CLOSED]
    if unfit and spec.search.prune not in (None, "off"):
        problem = f"stops trials early, and the metric of {unfit[0]} cannot be computed on some of its documents"
        raise InvalidStudy("search.prune", spec.search.prune, problem, "leave it out, or choose another metric")
    return not unfit


def _digest(task: str, models: str) -> str:
    # what these make of a recipe may change with a release, and then an old item is none of a new candidate
    computes = "|".join(version(package) for package in ("mergesearch", "transformers"))
    return blake2b(f"mergesearch/items/v1|{computes}|{task}|{models}".encode(), digest_size=16).hexdigest()
