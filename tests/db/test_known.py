"""What is known of a recipe is not scored again: on the next rung, in another study, on the other side of a split."""

from typing import Any

import pytest

from db.records import DocumentSet, Study
from db.store import Store
from evaluation.result import Failed, Part
from evaluation.wanted import Wanted
from tests.db.rows import ORDER, claimed, evaluated, found, on_rungs, recipe


def wanted(store: Store, study: Study, digest: str = "d0", part: Part = "search", rung: int = 0) -> Wanted:
    """What an evaluation of that recipe must have."""
    evaluation_id = store.evaluations.want(study.id, recipe(), digest, part, rung)[0].id
    return store.evaluations.wanted(claimed(store, evaluation_id))


def test_a_rung_takes_its_documents_from_the_beginning_of_the_order() -> None:
    documents = DocumentSet(ORDER, (2, 4, 8))
    assert [documents.at(rung) for rung in range(3)] == [(0, 5), (0, 2, 5, 7), tuple(range(8))]
    assert documents.at(-1) == tuple(range(8)) and DocumentSet((3, 1), (0, 2)).at(0) == ()
    with pytest.raises(IndexError):
        documents.at(3)


def test_a_rung_lacks_only_what_it_has_more_than_the_one_before(any_store: Store) -> None:
    study = on_rungs(any_store)
    assert wanted(any_store, study, "d1") == Wanted("search", {"t": (0, 5)}, {})
    evaluated(any_store, study)
    assert wanted(any_store, study, rung=1) == Wanted("search", {"t": (0, 2, 5, 7)}, {"t": {0: 0.0, 5: 0.5}})
    last = wanted(any_store, study, rung=2)
    assert last.missing == {"t": (1, 2, 3, 4, 6, 7)} and last.reused == 2


def test_what_another_study_found_counts_on_whatever_side_of_its_split(any_store: Store) -> None:
    first = on_rungs(any_store, "first", held=(0, 1))
    evaluated(any_store, first, part="holdout")
    evaluated(any_store, first, rung=0)
    second = on_rungs(any_store, "second")
    known = wanted(any_store, second, rung=2)
    assert known.known == {"t": {0: 0.0, 1: 0.1, 5: 0.5, 7: 0.7}} and known.missing == {"t": (2, 3, 4, 6)}
    assert wanted(any_store, second, part="holdout").missing == {"t": (8, 9)}


def test_all_that_is_known_needs_no_scoring(any_store: Store) -> None:
    evaluated(any_store, on_rungs(any_store, "first"), rung=2)
    second = on_rungs(any_store, "second")
    assert wanted(any_store, second, rung=1).missing == {}
    full = evaluated(any_store, second, rung=2)
    outcome = any_store.evaluations.get(full).outcome
    assert outcome == found(range(8), reused=8) and any_store.metrics.read().reused == 8


@pytest.mark.parametrize("digests", [("t1", "t2"), (None, None), (None, "t1"), ("t1", None)])
def test_only_what_was_scored_the_same_way_is_known(any_store: Store, digests: tuple[str | None, str | None]) -> None:
    first, second = digests
    evaluated(any_store, on_rungs(any_store, "first", first), rung=2)
    assert wanted(any_store, on_rungs(any_store, "second", second), rung=2).known == {}


def test_nothing_is_known_of_another_recipe_or_of_what_failed(any_store: Store) -> None:
    study = on_rungs(any_store)
    evaluated(any_store, study, "d1", rung=2)
    failed = any_store.evaluations.want(study.id, recipe(), "d0", "search", 0)[0].id
    any_store.evaluations.finish(claimed(any_store, failed), Failed(why="no memory"))
    assert wanted(any_store, study, rung=2).known == {}


def test_what_the_study_found_itself_goes_before_what_others_did(any_store: Store) -> None:
    first, second = on_rungs(any_store, "first"), on_rungs(any_store, "second")
    both = [any_store.evaluations.want(s.id, recipe(), "d0", "search")[0].id for s in (first, second)]
    for evaluation_id, items in zip(both, ([0.25, 0.25], [0.5, 0.5]), strict=True):
        any_store.evaluations.finish(claimed(any_store, evaluation_id), found((0, 5), items))
    assert wanted(any_store, first, rung=1).known == {"t": {0: 0.25, 5: 0.25}}
    assert wanted(any_store, second, rung=1).known == {"t": {0: 0.5, 5: 0.5}}


def test_what_can_be_nobodys_is_not_known(any_store: Store) -> None:
    study = on_rungs(any_store)
    lease = claimed(any_store, any_store.evaluations.want(study.id, recipe(), "d0", "search")[0].id)
    any_store.evaluations.finish(lease, found((0, 5, 7)))
    assert wanted(any_store, study, rung=1).known == {}


@pytest.mark.parametrize("items", [[1.0, 0.0], [0.1, -2.5], [[0.5, 3.0], [-0.5, 2.0]], ["a", "b"]])
def test_items_are_known_exactly_as_they_were_written(any_store: Store, items: list[Any]) -> None:
    study = on_rungs(any_store)
    lease = claimed(any_store, any_store.evaluations.want(study.id, recipe(), "d0", "search")[0].id)
    any_store.evaluations.finish(lease, found((0, 5), items))
    assert wanted(any_store, study, rung=1).known == {"t": {0: items[0], 5: items[1]}}


def test_a_task_without_documents_on_a_rung_is_left_out(any_store: Store) -> None:
    parts: dict[tuple[str, Part], DocumentSet] = {
        ("proxy", "search"): DocumentSet((1, 0), (2, 0), "p"),
        ("t", "search"): DocumentSet((3, 2), (0, 2), "t"),
    }
    study = any_store.studies.create("proxy", {}, "f", {}, parts)
    assert any_store.studies.documents(study.id) == parts
    assert wanted(any_store, study).documents == {"proxy": (0, 1)}
    assert wanted(any_store, study, rung=1).documents == {"t": (2, 3)}
