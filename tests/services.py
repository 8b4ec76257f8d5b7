"""Real PostgreSQL and Redis servers of the tests' own, on free ports of this machine, gone when the tests are."""

import os
import pwd
import re
import shutil
import signal
import subprocess
import uuid
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest
from redis import Redis as Client
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from tests.server import HOST, Server, unprivileged

# Debian and others keep the server's programs out of PATH
POSTGRES_FOLDERS = ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/opt/homebrew/opt/postgresql@*/bin")
INSTALL = {"postgresql": "apt-get install postgresql", "redis": "apt-get install redis-server"}


def postgres_programs() -> Path | None:
    """The folder that holds PostgreSQL's `initdb` and `postgres`, the newest one; None on a machine without."""
    on_path = shutil.which("initdb")
    folders = [Path(on_path).resolve().parent] if on_path else []
    for pattern in POSTGRES_FOLDERS:
        found = Path("/").glob(pattern.lstrip("/"))
        folders += sorted(found, key=lambda folder: [int(n) for n in re.findall(r"\d+", str(folder))], reverse=True)
    return next((f for f in folders if all(os.access(f / name, os.X_OK) for name in ("initdb", "postgres"))), None)


def redis_program() -> Path | None:
    """Redis's server program; None on a machine without."""
    found = shutil.which("redis-server")
    return Path(found) if found else None


def need(what: str) -> Path:
    """The programs of "postgresql" or "redis". Without them the test is skipped, and fails where all must run (CI)."""
    found = postgres_programs() if what == "postgresql" else redis_program()
    if found is None:
        reason = f"{what} is not installed: {INSTALL[what]}"
        if os.environ.get("CI", "").lower() == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return found


class Postgres(Server):
    """A PostgreSQL server, whose every database is for the tests to fill. What is committed survives `kill`."""

    owner_died = signal.SIGQUIT  # the postmaster's immediate shutdown; it takes the connections' processes with it
    # durability against a crash of the machine is all that is given up
    settings = (
        *("listen_addresses=127.0.0.1", "unix_socket_directories=", "max_connections=100", "shared_buffers=32MB"),
        *("fsync=off", "full_page_writes=off", "wal_level=minimal", "max_wal_senders=0", "autovacuum=off", "jit=off"),
        "dynamic_shared_memory_type=mmap",  # in the folder, so it goes with it
    )

    def __init__(self) -> None:
        self._programs = need("postgresql")
        super().__init__(unprivileged())
        self._data = self.folder / "data"
        try:
            self._make_cluster()
        except BaseException:
            self.close()
            raise

    @property
    def url(self) -> str:
        """The database `postgres` of the server, for what concerns the server as a whole."""
        return self._url("postgres")

    def database(self) -> str:
        """The URL of a new, empty database."""
        name = f"test_{uuid.uuid4().hex}"
        self._execute(f"CREATE DATABASE {name} TEMPLATE template0")
        return self._url(name)

    def drop(self, url: str) -> None:
        """Remove that database, whoever is still connected."""
        self._execute(f"DROP DATABASE {url.rpartition('/')[2]} WITH (FORCE)")

    def stop(self, immediate: bool = True) -> None:
        """End it at once, as if it crashed, or in order; either way connections break."""
        self._end(signal.SIGQUIT if immediate else signal.SIGINT)

    def restart(self, immediate: bool = True) -> None:
        """Stop it and start it again, on the same port with the same data."""
        self.stop(immediate)
        self.start()

    def close(self) -> None:
        """End it and remove its folder, and the lock in shared memory that a killed server leaves."""
        left = self._data / "postmaster.pid"
        if self._keeper is None and left.exists() and (program := shutil.which("ipcrm")):
            for line in left.read_text().splitlines()[6:7]:  # the lock's key and id, once it has one
                subprocess.run([program, "-m", line.split()[1]], capture_output=True, check=False)
        super().close()

    def _url(self, database: str) -> str:
        return f"postgresql+psycopg://postgres@{HOST}:{self.port}/{database}"

    def _make_cluster(self) -> None:
        command = [str(self._programs / "initdb"), "-D", str(self._data), "-U", "postgres", "-A", "trust"]
        done = subprocess.run(
            [*command, "-E", "UTF8", "--locale=C", "--no-sync"],
            cwd=self.folder,
            user=self.user or None,
            group=pwd.getpwnam(self.user).pw_gid if self.user else None,
            extra_groups=[] if self.user else None,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def _command(self) -> list[str]:
        settings = [word for setting in self.settings for word in ("-c", setting)]
        return [str(self._programs / "postgres"), "-D", str(self._data), "-p", str(self.port), *settings]

    def _execute(self, statement: str) -> str:
        """Run one statement outside a transaction; the first value it gives, if any."""
        where = self.url.replace("+psycopg", "")
        with psycopg.connect(where, autocommit=True, connect_timeout=10) as connection:
            cursor = connection.execute(statement.encode())
            row = cursor.fetchone() if cursor.description else None
            return str(row[0]) if row else ""

    def _answers(self) -> bool:
        with suppress(psycopg.OperationalError):
            return self._execute("SHOW data_directory") == str(self._data)
        return False


class Redis(Server):
    """A Redis server that keeps nothing on disk: killed, it has lost all."""

    owner_died = signal.SIGKILL

    def __init__(self, password: str | None = None) -> None:
        self._program = need("redis")
        self._password = password
        super().__init__()

    @property
    def url(self) -> str:
        """The server's database 0, with the password."""
        who = f":{quote(self._password, safe='')}@" if self._password else ""
        return f"redis://{who}{HOST}:{self.port}/0"

    def client(self) -> Client:
        """A client that never tries twice; to be closed, or used in a `with`."""
        return Client.from_url(self.url, socket_timeout=10, socket_connect_timeout=3, retry=Retry(NoBackoff(), 0))

    def stop(self) -> None:
        """End it in order."""
        self._end(signal.SIGTERM)

    def wipe(self) -> None:
        """Kill it and start it again, empty, on the same port."""
        self.kill()
        self.start()

    def _command(self) -> list[str]:
        options = ["--bind", HOST, "--port", str(self.port), "--dir", str(self.folder)]
        secret = ["--requirepass", self._password] if self._password else []
        return [str(self._program), *options, "--save", "", "--appendonly", "no", *secret]

    def _answers(self) -> bool:
        with suppress(RedisError), self.client() as client:
            return int(client.info("server")["process_id"]) == self.pid
        return False
