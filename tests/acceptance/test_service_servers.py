"""Redis is wiped and PostgreSQL restarted while trials run: no process dies of it, no trial is lost."""

from collections.abc import Iterator

import pytest

from tests.acceptance.service import Service
from tests.acceptance.sound import finish_rehearsal
from tests.services import Postgres, Redis

pytestmark = pytest.mark.acceptance
TRIALS = 24


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[Postgres, Redis]]:
    """Servers that these tests may do with what they like."""
    with Postgres() as postgres, Redis() as redis:
        yield postgres, redis


@pytest.fixture(scope="module")
def fragile(
    servers: tuple[Postgres, Redis], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Service, Postgres, Redis]]:
    """A service with a controller and a worker on those servers; all of its processes must live to the end."""
    postgres, redis = servers
    with Service(postgres.database(), redis.url, tmp_path_factory.mktemp("fragile")) as service:
        service.controller()
        service.worker()
        yield service, postgres, redis


def assert_alive(service: Service, groups: list[set[int]]) -> None:
    """No process has died: neither the controller and the worker, nor their children."""
    assert [set(process.group()) >= group for process, group in zip(service.processes, groups, strict=True)] == [
        True
    ] * len(groups)


def test_redis_killed_and_wiped_while_trials_run(fragile: tuple[Service, Postgres, Redis]) -> None:
    service, _, redis = fragile
    study = service.study("redis", TRIALS, parallel=4)
    service.wait_until_told(study, 2)
    groups = [set(process.group()) for process in service.processes]
    for told in (4, 12):
        service.wait_until_told(study, told)
        redis.wipe()
    finish_rehearsal(service, study, TRIALS)
    assert_alive(service, groups)


@pytest.mark.parametrize("immediate", [True, False], ids=["crashed", "in-order"])
def test_postgres_restarted_while_trials_run(fragile: tuple[Service, Postgres, Redis], immediate: bool) -> None:
    service, postgres, _ = fragile
    study = service.study(f"postgres-{immediate}", TRIALS)
    service.wait_until_told(study, 2)
    groups = [set(process.group()) for process in service.processes]
    for told in (4, 12):
        service.wait_until_told(study, told)
        postgres.restart(immediate)
    finish_rehearsal(service, study, TRIALS)
    assert_alive(service, groups)


def test_postgres_away_for_longer_than_a_lead_and_redis_wiped_meanwhile(
    fragile: tuple[Service, Postgres, Redis],
) -> None:
    service, postgres, redis = fragile
    study = service.study("both", TRIALS)
    service.wait_until_told(study, 3)
    groups = [set(process.group()) for process in service.processes]
    controller, *_ = service.processes
    before = controller.said("the database is away")
    postgres.stop()
    redis.kill()
    service.wait_until(lambda: controller.said("the database is away") > before + 1, "the controller tries twice")
    redis.start()
    postgres.start()
    finish_rehearsal(service, study, TRIALS)
    assert_alive(service, groups)


def test_who_is_told_to_leave_while_postgres_is_away_leaves(fragile: tuple[Service, Postgres, Redis]) -> None:
    """The last of these tests: afterwards nobody is there."""
    service, postgres, _ = fragile
    postgres.stop()
    assert [process.leave() for process in service.processes] == [0] * len(service.processes)
    postgres.start()
