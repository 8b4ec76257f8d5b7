"""What a worker leaves behind is taken back: its attempt counts if it died, and not if it left."""

from collections.abc import Callable

import pytest

from db.leases import EXPIRED, MAX_ATTEMPTS
from db.records import Study
from db.store import Store
from evaluation.result import Failed
from tests.db.crew import Crew, each_of
from tests.db.rows import claimed, queued


def expire(store: Store, evaluation_id: int) -> tuple[int, ...]:
    """Its worker falls silent, and that is noticed."""
    claimed(store, evaluation_id, seconds=-1)
    return store.evaluations.sweep()


def die(store: Store, evaluation_id: int) -> tuple[int, ...]:
    """Its worker dies, and that is noticed."""
    claimed(store, evaluation_id, "dead")
    return store.evaluations.lost_worker("dead", "exit code -9")


def sweep(store: Store, number: int) -> tuple[int, ...]:
    """Sweep in a process of the crew."""
    return store.evaluations.sweep()


@pytest.mark.parametrize(("lose", "why"), [(expire, EXPIRED), (die, "exit code -9")])
def test_a_recipe_that_kills_its_workers_fails_and_does_not_take_the_fleet_down(
    any_store: Store, study: Study, lose: Callable[[Store, int], tuple[int, ...]], why: str
) -> None:
    evaluation_id = queued(any_store, study)
    other = queued(any_store, study, "d1")
    for attempt in range(MAX_ATTEMPTS):
        before = any_store.evaluations.get(evaluation_id)
        assert (before.state, before.attempts) == ("queued", attempt)
        assert lose(any_store, evaluation_id) == (evaluation_id,)
    assert any_store.evaluations.get(evaluation_id).outcome == Failed(why=f"{why} (attempt 3 of 3)")
    assert any_store.evaluations.unfinished(study.id) == (other,)
    retried = [e.data for e in any_store.events.after(study.id, 0) if e.kind == "trial.retried"]
    assert retried == [{"evaluation": evaluation_id, "attempt": n, "why": why} for n in (1, 2)]


def test_only_what_has_expired_is_swept_and_counted(any_store: Store, study: Study) -> None:
    late, punctual, waiting = (queued(any_store, study, f"d{n}") for n in range(3))
    claimed(any_store, late, seconds=-1)
    lease = claimed(any_store, punctual)
    assert any_store.evaluations.sweep() == (late,) and any_store.evaluations.sweep() == ()
    assert any_store.evaluations.renew(lease, 60)
    assert any_store.evaluations.state(waiting) == "queued"
    assert any_store.metrics.read().counters["lease_expiries"] == 1


def test_the_last_attempts_lease_is_swept_and_not_claimed(any_store: Store, study: Study) -> None:
    evaluation_id = queued(any_store, study)
    for _ in range(MAX_ATTEMPTS):
        claimed(any_store, evaluation_id, seconds=-1)
    assert any_store.evaluations.claim(evaluation_id, "one more", 60) is None
    assert any_store.evaluations.sweep() == (evaluation_id,)
    assert any_store.evaluations.state(evaluation_id) == "done"


def test_swept_by_many_at_once_a_lease_expires_once(any_store: Store, study: Study, crew: Crew) -> None:
    ids = [queued(any_store, study, f"d{n}") for n in range(10)]
    for evaluation_id in ids:
        claimed(any_store, evaluation_id, seconds=-1)
    swept = crew.race(any_store, sweep, each_of())
    assert sorted(id_ for mine in swept for id_ in mine) == ids
    assert {any_store.evaluations.get(id_).attempts for id_ in ids} == {1}
    assert any_store.metrics.read().counters["lease_expiries"] == len(ids)
    assert [e.seq for e in any_store.events.after(study.id, 0)] == list(range(1, len(ids) + 2))


def test_who_leaves_hands_back_and_the_attempt_does_not_count(any_store: Store, study: Study) -> None:
    mine, another = queued(any_store, study), queued(any_store, study, "d1")
    kept = claimed(any_store, another, "another")
    for _ in range(2 * MAX_ATTEMPTS):
        lease = claimed(any_store, mine)
        assert any_store.evaluations.hand_back("me") == (mine,)
        assert not any_store.evaluations.progress(lease, 1, 2), "who hands back stops"
    assert any_store.evaluations.get(mine).attempts == 0
    assert any_store.evaluations.renew(kept, 60)
    assert any_store.evaluations.hand_back("me") == any_store.evaluations.lost_worker("me", "gone") == ()


def test_a_killed_run_frees_its_leases_without_blaming_the_recipes(any_store: Store, study: Study) -> None:
    evaluation_id = queued(any_store, study)
    for _ in range(2 * MAX_ATTEMPTS):
        claimed(any_store, evaluation_id)
        any_store.evaluations.release_all(study.id)
    assert any_store.evaluations.get(evaluation_id).attempts == 0


def test_the_next_expiry_is_known(any_store: Store, study: Study) -> None:
    assert any_store.evaluations.seconds_to_next_expiry() is None
    claimed(any_store, queued(any_store, study), seconds=1000)
    claimed(any_store, queued(any_store, study, "d1"), seconds=-5)
    left = any_store.evaluations.seconds_to_next_expiry()
    assert left is not None and -30 < left <= -5
