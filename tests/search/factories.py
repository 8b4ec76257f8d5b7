"""Studies and outcomes for tests of the search, without models."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from db.records import Lead, Study, Trial
from db.store import Store
from evaluation.result import Failed, Infeasible, Part, Scored, TaskScore
from merging.recipe import Recipe
from search.controller import Controller, Search
from search.dispatch import InlineDispatcher
from search.finalists import Finalists, Unmeasured, find_finalists
from search.space import Space, make_space
from search.study import StudySpec, parse_study

LAYERS = 4
Evaluate = Callable[[Recipe, Part], Scored | Infeasible | Failed]


def study_content(**sections: Any) -> dict[str, Any]:
    """A valid study file; `sections` replace or extend its parts."""
    content: dict[str, Any] = {
        "schema": "mergesearch/study/v1",
        "name": "test",
        "models": {"base": "base", "experts": ["experts/a", "experts/b", "experts/c"]},
        "space": {"methods": ["task_arithmetic"]},
        "search": {"strategy": "random", "trials": 12, "parallel": 1, "seed": 3},
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
    return make_space(make_spec(**sections), LAYERS)


def fingerprints(spec: StudySpec) -> dict[str, str]:
    """Fingerprints as a study keeps them."""
    return {"base": "f-base"} | {f"expert:{e.name}": f"f-{e.name}" for e in spec.models.experts}


def create(store: Store, spec: StudySpec) -> Study:
    """The study's row, with a document split of eight and four."""
    setup = {"fingerprints": fingerprints(spec), "layer_count": LAYERS}
    parts = {("t", "search"): range(8), ("t", "holdout"): range(8, 12)}
    return store.studies.create(spec.name, spec.to_json(), spec.frozen_digest(), setup, parts)  # type: ignore[arg-type]


def leading(store: Store, study_id: int) -> Lead:
    """The lead of a study, whoever had it."""
    return store.leads.seize(study_id, "test")


def run_search(found: Search, store: Store, evaluate: Evaluate) -> tuple[Trial, ...]:
    """Take a search to its end in this process; its trials."""
    dispatcher = InlineDispatcher(store, evaluate)
    controller = Controller(found, leading(store, found.study.id), store, dispatcher.announce)
    while not controller.step():
        dispatcher.wait(0)
    return store.trials.all(found.study.id)


def find_the_finalists(study: Study, trials: Sequence[Trial], store: Store, evaluate: Evaluate) -> Finalists:
    """Score what the final comparison needs in this process."""
    dispatcher = InlineDispatcher(store, evaluate)
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
