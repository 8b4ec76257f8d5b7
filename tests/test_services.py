"""The tests' own servers: they start, lose and keep what they should, and never outlive the tests."""

import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
from redis.exceptions import AuthenticationError
from redis.exceptions import ConnectionError as RedisGone

from db.store import Store
from tests import services
from tests.server import Server, is_open, wait_until
from tests.services import Postgres, Redis

ROOT = Path(__file__).parent.parent
OWNER = """
import sys, time
from tests import services
server = getattr(services, sys.argv[1])()
server.start()
print(server.port, server.folder, flush=True)
time.sleep(600)
"""


def ask(url: str, statement: str) -> list[tuple[object, ...]]:
    """Run one statement, committed; its rows."""
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        cursor = connection.execute(statement.encode())
        return list(cursor.fetchall()) if cursor.description else []


def tables(url: str) -> int:
    """How many tables of its own a database has."""
    (row,) = ask(url, "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")
    return int(str(row[0]))


def test_a_database_is_new_and_alone(postgres_server: Postgres, postgres_url: str) -> None:
    ask(postgres_url, "CREATE TABLE t (n int)")
    other = postgres_server.database()
    assert (tables(postgres_url), tables(other)) == (1, 0)
    assert ask(other, "SHOW server_encoding") == [("UTF8",)]
    with psycopg.connect(other.replace("+psycopg", "")):  # somebody still connected does not keep it
        postgres_server.drop(other)
    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        ask(other, "SELECT 1")


def test_postgres_keeps_what_was_committed(own_postgres: Postgres) -> None:
    url = own_postgres.database()
    ask(url, "CREATE TABLE t (n int)")
    ask(url, "INSERT INTO t VALUES (7)")
    own_postgres.kill()
    assert not is_open(own_postgres.port)
    with pytest.raises(psycopg.OperationalError):
        ask(url, "SELECT 1")
    own_postgres.start()
    own_postgres.restart()
    own_postgres.restart(immediate=False)
    assert ask(url, "SELECT n FROM t") == [(7,)]


def test_a_killed_postgres_starts_at_once_whatever_it_was_doing(own_postgres: Postgres) -> None:
    url = own_postgres.url
    with ThreadPoolExecutor(1) as elsewhere:
        busy = elsewhere.submit(ask, url, "SELECT pg_sleep(600)")
        running = "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
        wait_until(lambda: bool(ask(url, running)), "the query runs")
        own_postgres.kill()
        assert isinstance(busy.exception(), psycopg.OperationalError)
    own_postgres.start()  # it refuses while a process of the killed one is left
    assert ask(url, "SELECT 1") == [(1,)]


def test_a_wiped_redis_is_empty(own_redis: Redis) -> None:
    with own_redis.client() as client:
        client.set("k", "v")
    own_redis.wipe()
    with own_redis.client() as client:
        assert client.get("k") is None
    own_redis.kill()
    with own_redis.client() as client, pytest.raises(RedisGone):
        client.ping()


@pytest.mark.parametrize("test", ["one", "the other"])
def test_the_shared_redis_is_empty_for_each_test(redis_server: Redis, redis_url: str, test: str) -> None:
    assert redis_url == redis_server.url
    with redis_server.client() as client:
        assert client.dbsize() == 0
        client.set(test, "was here")


def test_redis_asks_for_its_password() -> None:
    with Redis(password="s/e:c@ret") as server:
        with server.client() as client:
            assert client.ping()
        server._password = None
        with server.client() as client, pytest.raises(AuthenticationError):
            client.ping()


def test_a_taken_port_is_given_up_for_another(
    redis_server: Redis, own_redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    ports = iter([redis_server.port, own_redis.port])
    own_redis.kill()
    monkeypatch.setattr("tests.server.free_port", lambda: next(ports))
    with Redis() as server, server.client() as client:
        assert server.port == own_redis.port
        assert client.info("server")["process_id"] == server.pid


def test_what_cannot_start_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Redis, "_command", lambda self: [str(self._program), "--no-such-option", "1"])
    server = Redis()
    with pytest.raises(AssertionError, match="no-such-option"), server:
        pass
    assert not server.folder.exists()


def test_a_stopped_process_can_be_killed(own_redis: Redis) -> None:
    os.kill(own_redis.pid, signal.SIGSTOP)
    own_redis.stop()
    assert not is_open(own_redis.port)


def test_a_server_outlives_the_thread_that_started_it(own_redis: Redis) -> None:
    starter = threading.Thread(target=own_redis.wipe)
    starter.start()
    starter.join()
    with own_redis.client() as client:
        assert client.ping()


@pytest.mark.parametrize(("kind", "what"), [(Postgres, "postgresql"), (Redis, "redis")])
def test_a_server_dies_with_its_owner(kind: type[Server], what: str) -> None:
    services.need(what)
    owner = subprocess.Popen([sys.executable, "-c", OWNER, kind.__name__], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    with owner:
        assert owner.stdout is not None
        port, folder = owner.stdout.readline().split()
        assert is_open(int(port)) and Path(folder).is_dir()
        owner.kill()
    wait_until(lambda: not is_open(int(port)), "the port is closed")
    wait_until(lambda: not Path(folder).exists(), "the folder is gone")


@pytest.mark.parametrize(("kind", "remedy"), [(Postgres, "install postgresql"), (Redis, "install redis-server")])
def test_without_the_programs_a_test_is_skipped_but_fails_where_all_must_run(
    kind: type[Server], remedy: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(services, "POSTGRES_FOLDERS", ())
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match=remedy):
        kind()
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match=remedy):
        kind()


def test_programs_are_found_beside_the_path_the_newest_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for version in ("9", "15"):
        for name in ("initdb", "postgres"):
            program = tmp_path / "postgresql" / version / "bin" / name
            program.parent.mkdir(parents=True, exist_ok=True)
            program.touch(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(services, "POSTGRES_FOLDERS", (f"{tmp_path}/postgresql/*/bin",))
    assert services.postgres_programs() == tmp_path / "postgresql" / "15" / "bin"
    (tmp_path / "postgresql/15/bin/postgres").unlink()
    assert services.postgres_programs() == tmp_path / "postgresql" / "9" / "bin"


def test_any_store_is_empty_and_writable(any_store: Store) -> None:
    assert any_store.studies.find("nothing") is None
