"""Real Celery workers over real Redis and PostgreSQL: what is queued gets done once, whoever dies meanwhile."""

import os
import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from db.records import Study
from db.store import open_store
from evaluation.result import Failed, Scored
from tests.search.factories import scored
from tests.services import Postgres, Redis
from tests.workers.conftest import make_study
from tests.workers.service import LEASE_SECONDS, Service, kill
from tests.workers.test_benches import whole
from workers.dispatcher import CeleryDispatcher
from workers.rehearsal import Rehearsal, RehearsalBenches


def test_what_is_queued_is_scored_once_however_often_it_is_said(service: Service, study: Study) -> None:
    ids = service.queue(study, *(i / 10 for i in range(20)))
    other = CeleryDispatcher(service.redis_url)
    with service.worker(name="w1") as worker:
        for dispatcher in (service.dispatcher, other, other):
            dispatcher.publish(service.store.evaluations.queued())
        service.until(lambda: service.done(ids), "all are done")
        (process,) = service.store.processes.alive("worker")
        assert process.name == "w1" and process.pid == worker.parent.pid
        assert process.detail["pools"] == ["default"] and process.detail["device_name"] == "rehearsal"
        assert process.detail["memory_used"] < process.detail["memory_total"]
        for pid in worker.tree():
            assert "torch" not in Path(f"/proc/{pid}/maps").read_text()
        service.until(lambda: service.dispatcher.depth("default") == 0, "every message is taken")
        worker.signal(signal.SIGTERM)
        assert worker.parent.wait(30) == 0
    other.close()
    assert service.store.processes.alive("worker") == ()
    bench = RehearsalBenches(service.store, Rehearsal()).bench(study.id)
    for evaluation in map(service.get, ids):
        bench.build(evaluation.recipe, lambda *a: None)
        assert isinstance(evaluation.outcome, Scored) and evaluation.attempts == 1
        assert evaluation.outcome.scores == bench.score(whole(service.store, study), lambda *a: None)[0]


def test_a_child_killed_at_work_costs_an_attempt_and_no_lease_time(service: Service, study: Study) -> None:
    (id_,) = service.queue(study, 0.1)
    with service.worker(seconds=3.0, lease_seconds=300.0):
        service.until(lambda: service.at_work(id_), "it is begun")
        kill(service.at_work(id_))
        assert service.until(lambda: service.get(id_).state == "queued", "it is queued again") < 5
        service.until(lambda: service.done([id_]), "the next child does it")
    assert isinstance(service.get(id_).outcome, Scored) and service.get(id_).attempts == 2


def test_what_kills_its_worker_three_times_fails_and_the_others_are_done(service: Service, study: Study) -> None:
    poison, *others = service.queue(study, 0.1, 0.2, 0.3)
    with service.worker(seconds=0.5, lease_seconds=300.0):
        for attempt in (1, 2, 3):
            service.until(lambda: service.at_work(poison), "it is begun again")
            assert service.get(poison).attempts == attempt
            kill(service.at_work(poison))
            service.until(lambda: not service.at_work(poison), "it is taken back")
        service.until(lambda: service.done([poison, *others]), "all are over")
    outcome = service.get(poison).outcome
    assert isinstance(outcome, Failed) and "died" in outcome.why and "attempt 3 of 3" in outcome.why
    assert all(isinstance(service.get(i).outcome, Scored) for i in others)


def test_a_worker_killed_as_a_whole_is_replaced_within_the_lease_and_five_seconds(
    service: Service, study: Study
) -> None:
    ids = service.queue(study, 0.1, 0.2)
    with service.worker(seconds=3.0) as dying, service.worker(seconds=3.0):
        service.until(lambda: all(map(service.at_work, ids)), "both work")
        children = {service.at_work(i): i for i in ids}
        (victim,) = set(children) & set(dying.tree())
        id_ = children[victim]
        kill(dying.parent.pid)
        service.until(lambda: is_gone(victim), "the child dies with its parent", 5)
        took = service.until(lambda: service.at_work(id_) not in (0, victim), "the other has it")
        service.until(lambda: service.done(ids), "both are done")
    assert took < LEASE_SECONDS + 5
    assert service.get(id_).attempts == 2


def is_gone(pid: int) -> bool:
    """Whether there is no such process, or only its remains."""
    try:
        return ") Z" in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True


@pytest.mark.parametrize("point", ["claimed", "built", "scoring"])
def test_a_child_that_dies_at_any_point_before_the_outcome_costs_an_attempt(
    service: Service, study: Study, point: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MERGESEARCH_FAULT", f"worker.{point}:2")  # each child dies of its second
    ids = service.queue(study, 0.1, 0.2)
    with service.worker(steps=1, lease_seconds=300.0):
        service.until(lambda: service.done(ids), "they are over")
    assert [service.get(i).attempts for i in ids] == [1, 2]
    assert all(isinstance(service.get(i).outcome, Scored) for i in ids)


def test_a_child_that_dies_after_writing_costs_nothing(
    service: Service, study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MERGESEARCH_FAULT", "worker.finished:1")
    ids = service.queue(study, 0.1, 0.2)
    with service.worker(lease_seconds=300.0):
        service.until(lambda: service.done(ids), "they are over")
    assert all(isinstance(service.get(i).outcome, Scored) and service.get(i).attempts == 1 for i in ids)


def test_a_worker_asked_to_leave_finishes_what_it_does(service: Service, study: Study) -> None:
    ids = service.queue(study, 0.1, 0.2, 0.3)
    with service.worker(seconds=1.0, drain_seconds=60.0, name="w1") as worker:
        service.until(lambda: service.at_work(ids[0]), "it is begun")
        worker.signal(signal.SIGTERM)
        service.until(lambda: said_stopping(service), "it says that it is leaving", 5)
        assert worker.parent.wait(30) == 0
        (first, *rest) = map(service.get, ids)
        assert isinstance(first.outcome, Scored) and first.attempts == 1
        assert all(evaluation.state == "queued" and evaluation.attempts == 0 for evaluation in rest)


def said_stopping(service: Service) -> bool:
    """Whether the one worker is registered as leaving, or gone."""
    return all(process.detail["stopping"] for process in service.store.processes.alive("worker"))


@pytest.mark.parametrize(("drain", "signals"), [(0.5, 1), (300.0, 2)], ids=["in time", "asked twice"])
def test_a_worker_that_must_leave_hands_back_and_the_attempt_does_not_count(
    service: Service, study: Study, drain: float, signals: int
) -> None:
    (id_,) = service.queue(study, 0.1)
    with service.worker(seconds=300.0, steps=3000, drain_seconds=drain, lease_seconds=300.0) as worker:
        service.until(lambda: service.at_work(id_), "it is begun")
        for _ in range(signals):
            worker.signal(signal.SIGTERM)
            time.sleep(0.1)  # two signals at once are one
        assert worker.parent.wait(15) == 0
        assert worker.said("handed back")
    evaluation = service.get(id_)
    assert evaluation.state == "queued" and evaluation.attempts == 0
    assert service.store.processes.alive("worker") == ()


def test_a_child_that_does_not_notice_is_left_behind(service: Service, study: Study) -> None:
    (id_,) = service.queue(study, 0.1)
    with service.worker(seconds=300.0, steps=1, drain_seconds=0.1, lease_seconds=300.0) as worker:
        service.until(lambda: service.at_work(id_), "it is begun")
        child = service.at_work(id_)
        worker.signal(signal.SIGTERM)
        assert worker.parent.wait(20) == 0
        service.until(lambda: is_gone(child), "the child is gone too", 5)
    assert service.get(id_).attempts == 0


def test_a_frozen_worker_writes_nothing_once_thawed(service: Service, study: Study) -> None:
    (id_,) = service.queue(study, 0.1)
    with service.worker(seconds=1.5, name="w1") as worker:
        service.until(lambda: service.at_work(id_), "it is begun")
        tree = worker.tree()
        for pid in tree:
            os.kill(pid, signal.SIGSTOP)
        service.until(lambda: service.get(id_).state == "queued", "its lease is over")
        lease = service.store.evaluations.claim(id_, "another", 300.0)
        assert lease is not None and lease.attempt == 2
        for pid in tree:
            os.kill(pid, signal.SIGCONT)
        service.until(lambda: worker.said("the lease was lost") or worker.said("came too late"), "it gives up")
        assert service.get(id_).owner == "another"
        assert service.store.evaluations.finish(lease, scored(0.25))
        (after,) = service.queue(study, 0.2)
        service.until(lambda: service.done([after]), "it works on")
    assert service.get(id_).outcome == scored(0.25)


def test_a_cancelled_study_is_stopped_within_seconds(service: Service, study: Study) -> None:
    (id_,) = service.queue(study, 0.1)
    with service.worker(seconds=300.0, steps=3000, lease_seconds=60.0) as worker:
        service.until(lambda: service.at_work(id_), "it is begun")
        service.store.studies.cancel(study.name)
        assert service.until(lambda: worker.said("the lease was lost"), "it stops") < 3
    assert isinstance(service.get(id_).outcome, Failed)


@pytest.fixture
def fragile(own_postgres: Postgres, own_redis: Redis, tmp_path: Path) -> Iterator[Service]:
    """On servers of its own."""
    store = open_store(own_postgres.database())
    dispatcher = CeleryDispatcher(own_redis.url, again_seconds=0.5)
    yield Service(store, own_redis.url, dispatcher, tmp_path)
    dispatcher.close()
    store.close()


def test_a_redis_killed_and_wiped_costs_nothing(fragile: Service, own_redis: Redis) -> None:
    ids = fragile.queue(make_study(fragile.store), *(i / 10 for i in range(8)))
    with fragile.worker(seconds=0.3):
        for some in (ids[:1], ids[:4]):
            fragile.until(partial(fragile.done, some), "some are done")
            own_redis.wipe()
        fragile.until(lambda: fragile.done(ids), "all are done")
    assert all(fragile.get(i).attempts == 1 and isinstance(fragile.get(i).outcome, Scored) for i in ids)
    assert fragile.dispatcher.healthy


def test_a_redis_wiped_while_a_message_is_taken_keeps_no_worker_from_the_next(
    fragile: Service, own_redis: Redis
) -> None:
    ids = fragile.queue(make_study(fragile.store), *(i / 10 for i in range(6)))
    with fragile.worker(seconds=0.3):
        for id_ in ids[:-1]:
            fragile.until(lambda id_=id_: fragile.get(id_).attempts, "it is taken")  # type: ignore[misc]
            own_redis.wipe()
        fragile.until(lambda: fragile.done(ids), "all are done")
    assert all(fragile.get(i).attempts == 1 for i in ids)


def test_what_a_worker_took_redis_need_not_hear_of_again(fragile: Service, own_redis: Redis) -> None:
    ids = fragile.queue(make_study(fragile.store), 0.1, 0.2)
    with fragile.worker():
        fragile.until(lambda: fragile.done(ids), "both are done")
        with own_redis.client() as client:
            asked = client.info("commandstats")
    # no list of what is taken, which a Redis that dies at that moment would leave a worker waiting for
    assert "cmdstat_brpop" in asked and not {"cmdstat_hset", "cmdstat_hdel", "cmdstat_zadd"} & set(asked)


def test_a_worker_waits_for_redis_and_leaves_without(fragile: Service, own_redis: Redis) -> None:
    own_redis.stop()
    (id_,) = fragile.queue(make_study(fragile.store), 0.1)
    with fragile.worker() as worker:
        fragile.until(lambda: fragile.store.processes.alive("worker"), "it is there")
        own_redis.start()
        fragile.until(lambda: fragile.done([id_]), "it works")
        own_redis.stop()
        fragile.until(lambda: worker.said("Connection to broker lost"), "it knows")
        worker.signal(signal.SIGTERM)
        assert worker.parent.wait(15) == 0


def test_a_postgres_restarted_costs_nothing(fragile: Service, own_postgres: Postgres) -> None:
    ids = fragile.queue(make_study(fragile.store), *(i / 10 for i in range(6)))
    with fragile.worker(seconds=0.4, lease_seconds=30.0):
        fragile.until(lambda: fragile.at_work(ids[1]), "the second is begun")
        own_postgres.stop()
        time.sleep(1.0)  # the work ends while the database is away
        own_postgres.start()
        fragile.until(lambda: fragile.done(ids), "all are done")
    assert all(fragile.get(i).attempts == 1 and isinstance(fragile.get(i).outcome, Scored) for i in ids)


def test_workers_of_several_devices_are_started_again_and_leave_together(service: Service, study: Study) -> None:
    with service.worker(devices=("cpu", "cpu")) as supervisor:
        alive = service.store.processes.alive
        service.until(lambda: len(alive("worker")) == 2, "both are there")
        first = {process.pid for process in alive("worker")}
        kill(min(first))
        service.until(lambda: {p.pid for p in alive("worker")} - first, "another takes its place")
        ids = service.queue(study, 0.1, 0.2)
        service.until(lambda: service.done(ids), "they work")
        supervisor.signal(signal.SIGTERM)
        assert supervisor.parent.wait(30) == 0
    assert {process.pid for process in alive("worker")} <= {min(first)}


@pytest.mark.parametrize("devices", [("cpu",), ("cpu", "cpu")])
def test_a_terminals_interrupt_lets_workers_finish_what_they_do(
    service: Service, study: Study, devices: tuple[str, ...]
) -> None:
    ids = service.queue(study, *(0.1 * i for i in range(len(devices))))
    with service.worker(seconds=3.0, devices=devices, drain_seconds=60.0) as worker:
        service.until(lambda: all(map(service.at_work, ids)), "all are begun")
        os.killpg(worker.parent.pid, signal.SIGINT)  # Ctrl-C reaches every process of the group
        assert worker.parent.wait(60) == 0
    assert all(isinstance(service.get(i).outcome, Scored) and service.get(i).attempts == 1 for i in ids)


def test_workers_whose_supervisor_was_killed_finish_and_leave(service: Service, study: Study) -> None:
    ids = service.queue(study, 0.1, 0.2)
    with service.worker(devices=("cpu", "cpu"), seconds=2.0, lease_seconds=300.0) as supervisor:
        service.until(lambda: all(map(service.at_work, ids)), "both work")
        tree = supervisor.tree()
        kill(supervisor.parent.pid)
        service.until(lambda: all(map(is_gone, tree)), "nobody is left")
    assert all(isinstance(service.get(i).outcome, Scored) and service.get(i).attempts == 1 for i in ids)
