"""Studies and outcomes for tests of the search, without models."""

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any

from db.records import DocumentSet, Lead, Study, Trial
from db.store import Store
from evaluation.result import Failed, Infeasible, Part, Scored, TaskScore
from evaluation.wanted import Wanted
from merging.recipe import Recipe
from search.controller import Controller, Search
from search.dispatch import InlineDispatcher
from search.finalists import Finalists, Unmeasured, find_finalists
from search.racing.rungs import plan_rungs, plan_sizes
from search.seeds import derive
from search.space import Space, make_space
from search.study import StudySpec, parse_study

LAYERS = 4
Outcome = Scored | Infeasible | Failed
Evaluate = Callable[[Recipe, Part], Outcome]
Measured = Callable[[Recipe, Wanted], Outcome]


def study_content(**sections: Any) -> dict[str, Any]:
    """A valid study file; `sections` replace or extend its parts. Winners are explained where a test asks for it."""
    content: dict[str, Any] = {
        "schema": "mergesearch/study/v1",
        "name": "test",
        "models": {"base": "base", "experts": ["experts/a", "experts/b", "experts/c"]},
        "space": {"methods": ["task_arithmetic"]},
        "search": {"strategy": "random", "trials": 12, "parallel": 1, "seed": 3, "explain": False},
        "evaluation": {"tasks": [{"name": "t"}]},
    }
    for key, value in sections.items():
        if isinstance(value, Mapping) and isinstance(content.get(key), dict):
            content[key] = {**content[key], **value}
        else:
            content[key] = value
    return content


def make_spec(**sections: Any) -> StudySpec:
    """A valid study."""
    return parse_study(study_content(**sections))


def space_of(**sections: Any) -> Space:
    """The space of a study over a model of four layers."""
    return make_space(make_spec(**sections), LAYERS, "5" * 32)


def fingerprints(spec: StudySpec) -> dict[str, str]:
    """Fingerprints as a study keeps them."""
    return {"base": "f-base"} | {f"expert:{e.name}": f"f-{e.name}" for e in spec.models.experts}


def create(store: Store, spec: StudySpec) -> Study:
    """The study's row, with a document split of eight and four."""
    setup = {"fingerprints": fingerprints(spec), "layer_count": LAYERS}
    parts: dict[tuple[str, Part], DocumentSet] = {
        ("t", "search"): DocumentSet.whole(range(8)),
        ("t", "holdout"): DocumentSet.whole(range(8, 12)),
    }
    return store.studies.create(spec.name, spec.to_json(), spec.frozen_digest(), setup, parts)


def create_race(store: Store, spec: StudySpec, documents: int = 400, about: Mapping[str, Any] | None = None) -> Study:
    """The row of a study with so many search documents, and 50 others, in as many rungs as its policy makes of them.

    Args:
        about: what its setup says beside that.
    """
    rungs, proxied = plan_rungs(spec.racing, documents, 1), spec.evaluation.proxy is not None
    setup = {"fingerprints": fingerprints(spec), "layer_count": LAYERS, "rungs": list(rungs), "proxy": proxied}
    setup |= {"aggregations": {"t": "mean"}, **(about or {})}
    order = tuple(sorted(range(documents), key=lambda i: derive("order", i)))
    sizes = plan_sizes({"t": documents}, ["t"], rungs)["t"]
    parts: dict[tuple[str, Part], DocumentSet] = {
        ("t", "search"): DocumentSet(order, (0, *sizes) if proxied else sizes, "d"),
        ("t", "holdout"): DocumentSet.whole(range(documents, documents + 50), "d"),
    }
    if proxied:
        parts["proxy", "search"] = DocumentSet(tuple(range(30)), (30,) * (len(sizes) + 1), "p")
    return store.studies.create(spec.name, spec.to_json(), spec.frozen_digest(), setup, parts)


def answers(quality: Callable[[Recipe], float]) -> Measured:
    """Scores of a candidate that has about a share `quality` of the documents right: the easy ones, now and then not.

    What is missing is answered, what is known is taken over, as a worker does.
    """

    def evaluate(recipe: Recipe, wanted: Wanted) -> Scored:
        share, who = quality(recipe), derive(recipe.to_json())

        def item(task: str, doc_id: int) -> float:
            lucky = derive("luck", task, who, doc_id)
            return float((lucky * 10 % 2**32 if lucky < 2**32 / 10 else derive("hard", task, doc_id)) / 2**32 < share)

        def score(task: str, documents: tuple[int, ...]) -> TaskScore:
            known = wanted.known.get(task, {})
            items = tuple(known[i] if i in known else item(task, i) for i in documents)
            about = {"metric": "acc", "value": fmean(items), "stderr": None, "higher_is_better": True}
            return TaskScore(task=task, documents=documents, items=items, **about)

        scores = tuple(score(task, documents) for task, documents in wanted.documents.items())
        spent = {"build_seconds": 0.1, "score_seconds": 0.2, "device": "cpu"}
        return Scored(scores=scores, tokens=10, reused=wanted.reused, **spent)

    return evaluate


def leading(store: Store, study_id: int) -> Lead:
    """The lead of a study, whoever had it."""
    return store.leads.seize(study_id, "test")


def inline(store: Store, evaluate: Evaluate) -> InlineDispatcher:
    """Does evaluations in this process, whatever documents are wanted."""
    return InlineDispatcher(store, lambda recipe, wanted: evaluate(recipe, wanted.part))


def run_search(found: Search, store: Store, evaluate: Evaluate) -> tuple[Trial, ...]:
    """Take a search to its end in this process; its trials."""
    dispatcher = inline(store, evaluate)
    controller = Controller(found, leading(store, found.study.id), store, dispatcher.announce)
    while not controller.step():
        dispatcher.wait(0)
    return store.trials.all(found.study.id)


def find_the_finalists(study: Study, trials: Sequence[Trial], store: Store, evaluate: Evaluate) -> Finalists:
    """Score what the final comparison needs in this process."""
    dispatcher = inline(store, evaluate)
    while isinstance(found := find_finalists(store, study, trials, ("a", "b", "c")), Unmeasured):
        dispatcher.announce(found.evaluation_ids)
        dispatcher.wait(0)
    return found


def scored(value: float, documents: int = 8) -> Scored:
    """An outcome with one task; every document has the same item."""
    score = TaskScore(
        task="t",
        metric="acc",
        value=value,
        stderr=None,
        higher_is_better=True,
        documents=tuple(range(documents)),
        items=(value,) * documents,
    )
    return Scored(scores=(score,), tokens=10, build_seconds=0.1, score_seconds=0.2, device="cpu")


def bowl(recipe: Recipe, best: Mapping[str, float]) -> float:
    """A smooth objective: minus the squared distance of every group's weights from the best ones."""
    distances = [
        sum((group.weights.get(name, 0.0) - weight) ** 2 for name, weight in best.items()) for group in recipe.groups
    ]
    return -sum(distances) / len(distances)
