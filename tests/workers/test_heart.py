"""A lease lives while the heart beats; work whose lease is lost is stopped."""

import time
from typing import Any

import pytest
import torch
from sqlalchemy.exc import OperationalError

from db.records import Lease
from db.store import Store
from tests.db.rows import queued
from tests.search.factories import create, make_spec
from workers.heart import Heart, LeaseLost

LIMIT_SECONDS = 20.0


@pytest.fixture
def lease(store: Store) -> Lease:
    claimed = store.evaluations.claim(queued(store, create(store, make_spec())), "me", seconds=0.5)
    assert claimed is not None
    return claimed


def test_a_beating_heart_keeps_the_lease_beyond_its_first_end(store: Store, lease: Lease) -> None:
    ends = time.monotonic() + 1.5
    with Heart(store, seconds=0.5).beating(lease) as beat:
        while time.monotonic() < ends:
            assert store.evaluations.claim(lease.evaluation_id, "thief", 60) is None
            beat(1, 2, 30.0)
    assert store.evaluations.renew(lease, 60)


def test_progress_is_written_now_and_then(store: Store, lease: Lease) -> None:
    ends = time.monotonic() + LIMIT_SECONDS
    with Heart(store, seconds=0.5).beating(lease) as beat:
        while (found := store.evaluations.get(lease.evaluation_id).progress) is None:
            assert time.monotonic() < ends
            beat(3, 8, 30.0)
    assert (found.documents_done, found.documents_total, found.tokens_per_second) == (3, 8, 30.0)


def test_a_database_that_is_away_for_a_moment_stops_nothing(
    store: Store, lease: Lease, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def away(*_: object) -> bool:
        calls.append("asked")
        raise OperationalError("select", None, Exception("the server is gone"))

    with Heart(store, seconds=0.3).beating(lease) as beat:
        with monkeypatch.context() as patch:
            patch.setattr(store.evaluations, "renew", away)
            patch.setattr(store.evaluations, "progress", away)
            ends = time.monotonic() + LIMIT_SECONDS
            while len(calls) < 4:
                assert time.monotonic() < ends
                beat(1, 2, 30.0)
        beat(2, 2, 30.0)
    assert store.evaluations.renew(lease, 60)  # nobody took it meanwhile


def test_work_whose_lease_was_taken_back_stops(store: Store, lease: Lease) -> None:
    told: list[tuple[int, int, int]] = []
    ends = time.monotonic() + LIMIT_SECONDS
    heart = Heart(store, lambda *a: told.append(a), seconds=0.3)
    with pytest.raises(LeaseLost), heart.beating(lease) as beat:
        beat(1, 4, 30.0)
        store.evaluations.lost_worker("me", "thought dead")
        while time.monotonic() < ends:
            beat(2, 4, 30.0)
    assert told[0] == (lease.evaluation_id, 1, 4)


def test_a_long_tensor_operation_starves_no_beat(store: Store, lease: Lease, monkeypatch: pytest.MonkeyPatch) -> None:
    beats: list[float] = []
    renew = store.evaluations.renew

    def counted(*args: Any) -> bool:
        beats.append(time.monotonic())
        return renew(*args)

    monkeypatch.setattr(store.evaluations, "renew", counted)
    numbers = torch.rand(8_000_000)
    with Heart(store, seconds=0.3).beating(lease):
        began = time.monotonic()
        torch.sort(numbers)  # one call that takes longer than the lease
        ended = time.monotonic()
    within = [beat for beat in beats if began < beat < ended]
    assert ended - began > 0.3 and len(within) >= (ended - began) / 0.3, f"{len(within)} in {ended - began:.1f} s"
