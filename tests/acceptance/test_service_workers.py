"""Workers are killed and frozen at work, and messages come twice: nothing is lost, and nothing is done twice."""

import pytest

from db.records import Evaluation, Study
from tests.acceptance.service import LEASE_SECONDS, Process, Service
from tests.acceptance.sound import finish_rehearsal
from workers.dispatcher import CeleryDispatcher

pytestmark = pytest.mark.acceptance
TRIALS = 16


@pytest.fixture(scope="module")
def controller(service: Service) -> Process:
    """The controller of all these studies."""
    return service.controller()


@pytest.fixture(scope="module")
def worker(service: Service, controller: Process) -> Process:
    """A worker that nothing happens to."""
    return service.worker()


def held_by(service: Service, study: Study, process: Process) -> Evaluation | None:
    """What a worker holds of a study now."""
    name = service.name_of(process)
    held = [e for e in service.store.evaluations.running(study.id) if e.owner and e.owner.startswith(f"{name}/")]
    return held[0] if held else None


@pytest.mark.parametrize("point", ["claimed:1", "built:1", "scoring:2"])
def test_a_killed_workers_trial_runs_again_within_the_lease_and_five_seconds(
    service: Service, worker: Process, point: str
) -> None:
    victim = service.worker(fault=f"worker.{point}:stop")
    study = service.study(f"killed-{point.partition(':')[0]}", TRIALS)
    service.wait_until(lambda: victim.is_frozen, "the worker has come to that point")
    held = held_by(service, study, victim)
    assert held is not None
    victim.kill()

    def runs_again() -> bool:
        now = service.store.evaluations.get(held.id)
        return now.state == "done" or (now.state == "leased" and now.owner != held.owner)

    assert service.wait_until(runs_again, "the trial runs again") < LEASE_SECONDS + 5
    finish_rehearsal(service, study, TRIALS)
    assert service.store.evaluations.get(held.id).attempts == 2


def test_a_worker_killed_after_writing_and_before_its_message_is_done_is_not_missed(
    service: Service, worker: Process
) -> None:
    victim = service.worker(fault="worker.finished:1:stop")
    study = service.study("killed-finished", TRIALS)
    service.wait_until(lambda: victim.is_frozen, "the worker has written its first outcome")
    assert held_by(service, study, victim) is None
    victim.kill()
    for trial in finish_rehearsal(service, study, TRIALS):
        assert service.store.evaluations.get(trial.evaluation_id or 0).attempts == 1


def test_the_only_worker_killed_alone_takes_its_child_along_and_the_next_goes_on(
    service: Service, controller: Process
) -> None:
    victim = service.worker(pool="alone", fault="worker.scoring:6:stop")
    study = service.study("killed-alone", TRIALS, pool="alone")
    service.wait_until(lambda: victim.is_frozen, "the worker has come to that point")
    victim.kill_alone()
    victim.thaw()
    service.wait_until(lambda: not victim.group(), "the child ends with its parent")
    with service.until_end(service.worker(pool="alone")):
        finish_rehearsal(service, study, TRIALS)


@pytest.mark.parametrize("point", ["built:1", "scoring:2"])
def test_a_worker_frozen_past_its_lease_writes_nothing_once_thawed(
    service: Service, worker: Process, point: str
) -> None:
    frozen = service.worker(fault=f"worker.{point}:stop")
    name = f"frozen-{point.partition(':')[0]}"
    study = service.study(name, TRIALS)
    with service.until_end(frozen):
        service.wait_until(lambda: frozen.is_frozen, "the worker has come to that point")
        frozen.freeze()
        held = held_by(service, study, frozen)
        assert held is not None
        service.wait_until(lambda: service.store.evaluations.get(held.id).state == "done", "the other worker did it")
        first = service.store.evaluations.get(held.id)
        frozen.thaw()
        about = f" evaluation={held.id} "
        service.wait_until(
            lambda: frozen.said("came too late", about) or frozen.said("the lease was lost", about), "it is refused"
        )
        assert service.store.evaluations.get(held.id) == first and first.attempts == 2
        finish_rehearsal(service, study, TRIALS)
        after = service.study(f"{name}-after", TRIALS)
        service.wait_until(lambda: frozen.said("evaluation.done", f"study={after.id}"), "it works on")
        finish_rehearsal(service, after, TRIALS)


def test_messages_that_come_again_and_again_change_nothing(service: Service, worker: Process) -> None:
    """All that waits, is being done or is done is said again all the time, to two workers."""
    with service.until_end(service.worker()):
        study = service.study("twice", TRIALS, parallel=4)
        said = 0
        while service.told(study) < TRIALS:
            dispatcher = CeleryDispatcher(service.redis_url)  # one that remembers nothing
            ids = {t.evaluation_id for t in service.store.trials.all(study.id) if t.evaluation_id is not None}
            for _ in range(2):
                dispatcher.publish([(id_, "default") for id_ in sorted(ids)], all_queued=True)
            dispatcher.close()
            said += len(ids)
        assert said > TRIALS
        for trial in finish_rehearsal(service, study, TRIALS):
            assert service.store.evaluations.get(trial.evaluation_id or 0).attempts == 1
