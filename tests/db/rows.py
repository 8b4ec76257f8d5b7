"""Rows that tests of the database need."""

from collections.abc import Sequence
from typing import Any

from db.records import DocumentSet, Lead, Lease, Study, Trial
from db.store import Store
from db.trials import NewTrial
from evaluation.result import Part, Scored, TaskScore
from merging.recipe import GroupMerge, Recipe


def recipe(weight: float = 1.0) -> Recipe:
    """A recipe of one group."""
    group = GroupMerge(layers=(0, 4), method="task_arithmetic", weights={"a": weight})
    return Recipe(schema_="mergesearch/recipe/v1", base="base", experts={"a": "a"}, groups=(group,))


def queued(store: Store, study: Study, digest: str = "d0") -> int:
    """The id of an evaluation that waits."""
    return store.evaluations.want(study.id, recipe(), digest, "search")[0].id


def claimed(store: Store, evaluation_id: int, owner: str = "me", seconds: float = 60) -> Lease:
    """Its lease."""
    lease = store.evaluations.claim(evaluation_id, owner, seconds)
    assert lease is not None
    return lease


def taken(store: Store, study: Study, owner: str = "me", seconds: float = 60) -> Lead:
    """The study's lead, which nobody has."""
    lead = store.leads.take(study.id, owner, seconds)
    assert lead is not None
    return lead


def added(store: Store, lead: Lead, number: int = 0) -> Trial:
    """A trial of a recipe of its own, so with an evaluation that waits."""
    return store.trials.add(lead, NewTrial(number, "tpe", {"x": 1.0}, recipe(number), f"d{number}"))


ORDER = (5, 0, 7, 2, 6, 1, 3, 4)  # in which the documents of a study on rungs are scored
SIZES = (2, 4, 8)


def on_rungs(store: Store, name: str = "rungs", digest: str | None = "t1", held: Sequence[int] = (8, 9)) -> Study:
    """A running study with three rungs: of two, four and all eight documents."""
    parts: dict[tuple[str, Part], DocumentSet] = {
        ("t", "search"): DocumentSet(tuple(i for i in (*ORDER, 8, 9) if i not in held)[:8], SIZES, digest),
        ("t", "holdout"): DocumentSet.whole(held, digest),
    }
    return store.studies.create(name, {}, "f", {}, parts)


def found(documents: Sequence[int], items: Sequence[Any] | None = None, reused: int = 0) -> Scored:
    """An outcome whose item is a tenth of the document, if no others are given."""
    values = tuple(i / 10 for i in documents) if items is None else tuple(items)
    score = TaskScore(
        task="t",
        metric="acc",
        value=0.5,
        stderr=None,
        higher_is_better=True,
        documents=tuple(documents),
        items=values,
    )
    return Scored(scores=(score,), tokens=1, build_seconds=0.1, score_seconds=0.2, device="cpu", reused=reused)


def evaluated(store: Store, study: Study, digest: str = "d0", part: Part = "search", rung: int = 0) -> int:
    """The id of an evaluation that was done as it was wanted."""
    evaluation_id = store.evaluations.want(study.id, recipe(), digest, part, rung)[0].id
    lease = claimed(store, evaluation_id)
    wanted = store.evaluations.wanted(lease)
    assert store.evaluations.finish(lease, found(wanted.documents["t"], reused=wanted.reused))
    return evaluation_id
