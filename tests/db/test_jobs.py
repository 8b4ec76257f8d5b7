"""Jobs: asked for once, done oldest first, taken back from who falls silent, ended by who holds them."""

from itertools import chain

import pytest

from db.jobs import Idempotency, IdempotencyMismatch
from db.leases import MAX_ATTEMPTS
from db.records import JobLease, Study
from db.store import Store
from merging.errors import Conflict, NotFound
from tests.db.crew import SIZE, Crew, each_of

ONCE = Idempotency("alice", "k", "digest")


def next_job(store: Store, owner: str = "clerk", seconds: float = 60) -> JobLease:
    """The next job of any kind."""
    lease = store.jobs.claim_next(("check", "judge", "export"), owner, seconds)
    assert lease is not None
    return lease


def add_once(store: Store, number: int, keys: list[str], study_id: int) -> list[int]:
    """Ask for the same jobs as the others; their ids."""
    content = {"n": 1}
    return [store.jobs.add("export", content, study_id=study_id, idempotency=Idempotency("a", k, "d")).id for k in keys]


def add_exports(store: Store, number: int, study_id: int) -> list[int]:
    """Ask for exports of one study; their ids."""
    return [store.jobs.add("export", {}, study_id=study_id).id for _ in range(8)]


def do_all(store: Store, number: int) -> list[int]:
    """Do jobs until there are none; their ids."""
    done = []
    while (lease := store.jobs.claim_next(("export",), f"clerk {number}", 60)) is not None:
        assert store.jobs.finish(lease, {"by": number})
        done.append(lease.job.id)
    return done


def test_the_same_request_is_done_once(any_store: Store) -> None:
    first = any_store.jobs.add("check", {"spec": 1}, idempotency=ONCE)
    assert any_store.jobs.earlier(Idempotency("alice", "other", "digest")) is None
    again = any_store.jobs.add("check", {"spec": 1}, idempotency=ONCE)
    assert again == first == any_store.jobs.earlier(ONCE)
    for another in (Idempotency("bob", "k", "digest"), Idempotency("alice", "k2", "digest"), None):
        assert any_store.jobs.add("check", {"spec": 1}, idempotency=another).id > first.id
    any_store.jobs.finish(next_job(any_store), {"study": "s"})
    done = any_store.jobs.add("check", {"spec": 1}, idempotency=ONCE)
    assert (done.id, done.state, done.result) == (first.id, "done", {"study": "s"})


def test_a_key_names_one_request(any_store: Store) -> None:
    any_store.jobs.add("check", {"spec": 1}, idempotency=ONCE)
    other = Idempotency("alice", "k", "another digest")
    with pytest.raises(IdempotencyMismatch, match="'k' was used for another request") as told:
        any_store.jobs.add("check", {"spec": 2}, idempotency=other)
    assert isinstance(told.value, Conflict)
    with pytest.raises(IdempotencyMismatch):
        any_store.jobs.earlier(other)
    next_job(any_store)
    assert any_store.jobs.claim_next(("check",), "me", 60) is None, "the refused request left nothing"


def test_asked_by_many_at_once_it_is_one_job(any_store: Store, study: Study, crew: Crew) -> None:
    keys = [f"k{n}" for n in range(6)]
    ids = crew.race(any_store, add_once, each_of(keys, study.id))
    assert ids == [ids[0]] * SIZE and len(set(ids[0])) == len(keys)
    assert [j.id for j in any_store.jobs.of_study(study.id, "export")] == sorted(ids[0])


def test_many_ask_for_exports_of_one_study_and_many_do_them(any_store: Store, study: Study, crew: Crew) -> None:
    added = crew.race(any_store, add_exports, each_of(study.id))
    done = crew.race(any_store, do_all, each_of())
    assert sorted(chain(*done)) == sorted(chain(*added))
    told = [e.data["state"] for e in any_store.events.after(study.id, 1)]
    assert {state: told.count(state) for state in told} == dict.fromkeys(("queued", "leased", "done"), 8 * SIZE)


def test_jobs_are_done_oldest_first_and_by_kind(any_store: Store, study: Study) -> None:
    export = any_store.jobs.add("export", {"trial": 3}, study_id=study.id)
    check = any_store.jobs.add("check", {})
    judge = any_store.jobs.add("judge", {}, study_id=study.id)
    got = any_store.jobs.claim_next(("check", "judge"), "clerk", 60)
    assert got is not None and (got.job.id, got.job.state, got.job.attempts) == (check.id, "leased", 1)
    assert next_job(any_store).job.id == export.id and next_job(any_store).job.id == judge.id
    assert any_store.jobs.claim_next(("check", "judge", "export"), "clerk", 60) is None
    assert [j.id for j in any_store.jobs.of_study(study.id, "judge")] == [judge.id]
    assert any_store.jobs.get(export.id, "export").content == {"trial": 3}
    for number, kind in ((export.id, "check"), (99, "export")):
        with pytest.raises(NotFound, match=f"no {kind} job {number}"):
            any_store.jobs.get(number, kind)


def test_who_lost_a_job_cannot_end_it(any_store: Store) -> None:
    job = any_store.jobs.add("check", {})
    slow = next_job(any_store, "slow", seconds=-1)
    quick = next_job(any_store, "quick")
    assert quick.job.id == job.id and quick.job.attempts == 2
    assert not any_store.jobs.renew(slow, 60)
    assert not any_store.jobs.finish(slow, {"by": "slow"}) and not any_store.jobs.refuse(slow, {"by": "slow"})
    assert any_store.jobs.renew(quick, 60) and any_store.jobs.refuse(quick, {"detail": "no"})
    assert not any_store.jobs.finish(quick, {"by": "quick"}), "once ended is ended"
    ended = any_store.jobs.get(job.id, "check")
    assert (ended.state, ended.problem, ended.result) == ("failed", {"detail": "no"}, None)
    assert ended.finished_at is not None


@pytest.mark.parametrize("how", ["sweep", "release"])
def test_a_job_that_kills_its_clerks_fails(any_store: Store, study: Study, how: str) -> None:
    job = any_store.jobs.add("export", {}, study_id=study.id)
    kept = any_store.jobs.add("check", {})
    assert any_store.jobs.claim_next(("check",), "another", 60) is not None
    for _ in range(MAX_ATTEMPTS):
        assert any_store.jobs.get(job.id, "export").state == "queued"
        next_job(any_store, "dead", seconds=-1 if how == "sweep" else 60)
        if how == "sweep":
            any_store.jobs.sweep()
        else:
            any_store.jobs.release("dead")
    failed = any_store.jobs.get(job.id, "export")
    assert failed.state == "failed" and failed.problem is not None and "3 times" in failed.problem["detail"]
    assert any_store.jobs.get(kept.id, "check").state == "leased", "another's is left alone"
    states = [e.data["state"] for e in any_store.events.after(study.id, 1)]
    assert states == [*["queued", "leased"] * MAX_ATTEMPTS, "failed"]


def test_a_spent_job_is_not_begun_again_before_it_is_swept(any_store: Store) -> None:
    any_store.jobs.add("check", {})
    for _ in range(MAX_ATTEMPTS):
        next_job(any_store, seconds=-1)
    assert any_store.jobs.claim_next(("check",), "one more", 60) is None


def test_what_a_leaving_clerk_hands_back_is_no_attempt(any_store: Store) -> None:
    job = any_store.jobs.add("check", {})
    for _ in range(2 * MAX_ATTEMPTS):
        assert next_job(any_store, "leaving").job.id == job.id
        any_store.jobs.release("leaving", died=False)
    assert any_store.jobs.get(job.id, "check").attempts == 0
