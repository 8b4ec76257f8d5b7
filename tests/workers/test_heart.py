"""A lease lives while the heart beats; work whose lease is lost is stopped."""

import time

import pytest

from db.records import Lease
from db.store import Store
from tests.db.test_store import queued
from tests.search.factories import create, make_spec
from workers.bench import LeaseLost
from workers.heart import Heart

LIMIT_SECONDS = 20.0


@pytest.fixture
def lease(store: Store) -> Lease:
    claimed = store.evaluations.claim(queued(store, create(store, make_spec())), "me", seconds=0.5)
    assert claimed is not None
    return claimed


def test_a_beating_heart_keeps_the_lease_beyond_its_first_end(store: Store, lease: Lease) -> None:
    ends = time.monotonic() + 1.5
    with Heart(store, lambda *a: None, seconds=0.5).beating(lease) as progress:
        while time.monotonic() < ends:
            assert store.evaluations.claim(lease.evaluation_id, "thief", 60) is None
            progress(1, 2)
    assert store.evaluations.renew(lease, 60)


def test_work_whose_lease_was_taken_back_stops(store: Store, lease: Lease) -> None:
    told: list[tuple[int, int, int]] = []
    ends = time.monotonic() + LIMIT_SECONDS
    heart = Heart(store, lambda *a: told.append(a), seconds=0.3)
    with pytest.raises(LeaseLost), heart.beating(lease) as progress:
        progress(1, 4)
        store.evaluations.lost_worker("me", "thought dead")
        while time.monotonic() < ends:
            progress(2, 4)
    assert told[0] == (lease.evaluation_id, 1, 4)
