"""Services for the tests that disturb them; a test that fails shows what their processes printed."""

from collections.abc import Generator, Iterator

import pytest

from tests.acceptance.service import Service
from tests.services import Postgres, Redis
from zoo.make import Zoo


@pytest.fixture(scope="module")
def service(
    postgres_server: Postgres, redis_server: Redis, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    """A service without processes yet, for all tests of a module; each makes a study of its own."""
    url = postgres_server.database()
    with Service(url, redis_server.url, tmp_path_factory.mktemp("service")) as started:
        yield started
    postgres_server.drop(url)


@pytest.fixture(scope="module")
def open_service(
    nano: Zoo, postgres_server: Postgres, redis_server: Redis, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    """A service that may open the zoo, with its API and one worker that has real models."""
    url = postgres_server.database()
    with Service(url, redis_server.url, tmp_path_factory.mktemp("open"), ROOTS=nano.folder) as started:
        started.serve()
        started.worker(rehearsal=False)
        yield started
    postgres_server.drop(url)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the logs of the services that a failed test used."""
    report = yield
    if report.failed:
        for name, value in getattr(item, "funcargs", {}).items():
            if isinstance(value, Service):
                report.sections.append((f"logs of {name}", value.logs()))
    return report
