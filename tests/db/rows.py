"""Rows that tests of the database need."""

from db.records import Lead, Lease, Study, Trial
from db.store import Store
from db.trials import NewTrial
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
