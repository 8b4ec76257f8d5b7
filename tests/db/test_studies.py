"""Studies: named once, found by name, read page by page; and fingerprints, remembered."""

import pytest

from db.records import DocumentSet, Study
from db.store import Store
from merging.errors import Conflict, NotFound
from tests.db.crew import Crew, each_of
from tests.search.factories import create, make_spec


def create_one(store: Store, number: int) -> bool:
    """Whether this process made the study."""
    try:
        create(store, make_spec(name="wanted"))
    except Conflict:
        return False
    return True


def test_a_name_is_taken_once(any_store: Store, study: Study) -> None:
    with pytest.raises(Conflict, match="test"):
        create(any_store, make_spec())
    with pytest.raises(NotFound, match=r"'other'.*test"):
        any_store.studies.get("other")
    for change in (any_store.studies.pause, any_store.studies.resume, any_store.studies.cancel):
        with pytest.raises(NotFound):
            change("other")
    assert any_store.studies.get("test") == study and any_store.studies.find("other") is None
    assert any_store.studies.all() == (study,) and any_store.events.last(study.id) == 1


def test_a_name_wanted_by_many_at_once_goes_to_one(any_store: Store, crew: Crew) -> None:
    assert sorted(crew.race(any_store, create_one, each_of())) == [False, False, False, True]
    (made,) = any_store.studies.all()
    assert len(any_store.studies.documents(made.id)) == 2 and any_store.events.last(made.id) == 1


def test_studies_are_read_page_by_page(any_store: Store) -> None:
    made = [create(any_store, make_spec(name=f"s{n}")) for n in range(5)]
    page = any_store.studies.page
    assert page(None, 2) == tuple(made[:2]) and page(made[1].id, 2) == tuple(made[2:4])
    assert page(made[3].id, 2) == (made[4],) and page(made[4].id, 2) == ()
    assert any_store.studies.by_id(made[2].id) == made[2]
    assert any_store.studies.documents(made[2].id) == {
        ("t", "search"): DocumentSet.whole(range(8)),
        ("t", "holdout"): DocumentSet.whole(range(8, 12)),
    }


def test_fingerprints_are_remembered(any_store: Store) -> None:
    assert any_store.fingerprints.get("k") is None
    any_store.fingerprints.put("k", "f")
    any_store.fingerprints.put("k", "g")
    assert any_store.fingerprints.get("k") == "g"


def test_a_fingerprint_of_a_folder_with_a_long_path_is_remembered(any_store: Store) -> None:
    key = "/models" + "/deep" * 200 + "|model.safetensors:97456:1795260268102320719"
    any_store.fingerprints.put(key, "f")
    assert any_store.fingerprints.get(key) == "f"
