"""The whole service, from the real command line, in processes that tests end, freeze and start again."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import httpx
from redis import Redis

from db.faults import VARIABLE as FAULT
from db.records import Process as Registered
from db.records import Study
from db.session import is_away
from db.store import Store, connect_store
from tests.acceptance.command import SCRIPT
from tests.search.factories import create, create_race, make_spec
from tests.server import HOST, free_port
from workers.dispatcher import CeleryDispatcher

LEASE_SECONDS, LEAD_SECONDS = 3, 2
LIMIT_SECONDS = 120.0  # of a loaded machine; what must be fast is measured
LOOK_SECONDS = 0.05
SHOWN = 4000  # characters of a log

# where a controller is killed, in the order of its loop, and at which pass; the last group ends a study
STEPS = {
    "a-round": ("leading:1", "swept:1", "replayed:1"),
    "a-proposal": ("proposed:1", "added:3", "announced:2"),
    "a-result": ("telling:2", "told:1", "told:3"),
    "a-race": ("promoting:1", "promoted:2"),
    "the-end": ("explaining:1", "holdout:1", "judging:1", "finishing:1", "finished:1"),
}


class Process:
    """One process of the service with all that it started: a process group of its own."""

    def __init__(self, role: str, started: "subprocess.Popen[bytes]", log: Path) -> None:
        self.role, self.log, self.pid = role, log, started.pid
        self._started = started

    @property
    def is_over(self) -> bool:
        """Whether the process itself has ended; what it started may live."""
        return self._started.poll() is not None

    @property
    def is_frozen(self) -> bool:
        """Whether one of the group stands still."""
        return "T" in self.group().values()

    def group(self) -> dict[int, str]:
        """The states of the group's living processes by id, as Linux names them."""
        found = {}
        for folder in Path("/proc").iterdir():
            with suppress(OSError):
                if folder.name.isdigit():
                    state, _, group = (folder / "stat").read_text().rpartition(")")[2].split()[:3]
                    if int(group) == self.pid and state != "Z":
                        found[int(folder.name)] = state
        return found

    def kill(self) -> None:
        """SIGKILL, to all at once, as when the machine goes."""
        self._signal(signal.SIGKILL)
        self._started.wait()

    def kill_alone(self) -> None:
        """SIGKILL, to the process itself: what it started must notice."""
        self._started.kill()
        self._started.wait()

    def freeze(self) -> None:
        """SIGSTOP, to all."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT, to all."""
        self._signal(signal.SIGCONT)

    def leave(self, seconds: float = 60.0) -> int:
        """SIGTERM, to the process itself, as a person ends it; its exit code."""
        self._started.terminate()
        return self._started.wait(seconds)

    def said(self, *words: str) -> int:
        """How many lines of its log hold all of that."""
        return sum(all(word in line for word in words) for line in self.log.read_text(errors="replace").splitlines())

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.pid, number)


class Service:
    """A service on a database of its own, which is migrated first; all its processes are killed in the end.

    Args:
        settings: `MERGESEARCH_*` variables of all processes, without the prefix.
    """

    def __init__(self, database_url: str, redis_url: str, folder: Path, **settings: object) -> None:
        self.database_url, self.redis_url, self.folder = database_url, redis_url, folder
        self.processes: list[Process] = []
        self.url = ""
        settings = {
            "DATABASE_URL": database_url,
            "REDIS_URL": redis_url,
            "EXPORTS": folder / "exports",
            "LEASE_SECONDS": LEASE_SECONDS,
            "CONTROLLER_LEASE_SECONDS": LEAD_SECONDS,
            **settings,
        }
        others = {name: value for name, value in os.environ.items() if not name.startswith("MERGESEARCH_")}
        self._environment = others | {f"MERGESEARCH_{name}": str(value) for name, value in settings.items()}
        self._store: Store | None = None

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.run("migrate")
        self._store = connect_store(self.database_url)
        with Redis.from_url(self.redis_url) as client:
            client.flushall()
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            process.kill()
        if self._store is not None:
            self._store.close()

    @property
    def store(self) -> Store:
        """The service's database, as its own code sees it."""
        assert self._store is not None, "it is not started"
        return self._store

    def run(self, *arguments: str | Path) -> str:
        """One command to its end; what it prints."""
        done = subprocess.run([SCRIPT, *arguments], env=self._environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def key(self, *scopes: str) -> str:
        """A new API key."""
        options = [word for scope in scopes for word in ("--scope", scope)]
        return str(json.loads(self.run("keys", "create", "test", *options, "--json"))["key"])

    def client(self, *scopes: str) -> httpx.Client:
        """A client of the API with a new key; to be closed, or used in a `with`."""
        headers = {"Authorization": f"Bearer {self.key(*scopes)}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=LIMIT_SECONDS)

    def start(self, role: str, *arguments: str, fault: str = "") -> Process:
        """Start a process.

        Args:
            fault: where it is to die or freeze, see `db.faults`.
        """
        log = self.folder / f"{len(self.processes):02}-{role}.log"
        environment = self._environment | ({FAULT: fault} if fault else {})
        with log.open("wb") as file:
            started = subprocess.Popen(
                [SCRIPT, role, *arguments], env=environment, stdout=file, stderr=file, start_new_session=True
            )
        self.processes.append(Process(role, started, log))
        return self.processes[-1]

    def controller(self, fault: str = "", *, ready: bool = True) -> Process:
        """Start a controller and wait until it takes part."""
        process = self.start("controller", fault=fault)
        if ready:
            self.wait_until(lambda: self.name_of(process), "the controller is there")
        return process

    def worker(self, *, fault: str = "", pool: str = "default", rehearsal: bool = True) -> Process:
        """Start a worker and wait until it takes work at once: its child, too, is up and has the database open."""
        options = ["--pool", pool, *(["--rehearsal"] if rehearsal else [])]
        process = self.start("worker", *options, fault=fault)
        dispatcher = CeleryDispatcher(self.redis_url, again_seconds=0.2)

        def works() -> bool:
            dispatcher.publish([(0, pool)])  # there is no such evaluation: whoever takes the message passes on
            return "device_name" in self.detail_of(process)  # said by the child after a message

        try:
            self.wait_until(works, "the worker works")
        finally:
            dispatcher.close()
        return process

    def serve(self) -> Process:
        """Start the API, from then on at `url`, and wait until it answers."""
        port = free_port()
        self.url = f"http://{HOST}:{port}"
        process = self.start("serve", "--host", HOST, "--port", str(port))

        def answers() -> bool:
            with suppress(httpx.TransportError):
                return httpx.get(f"{self.url}/healthz").is_success
            return False

        self.wait_until(answers, "the API answers")
        return process

    @contextmanager
    def until_end(self, *processes: Process) -> Iterator[None]:
        """Kill these at the block's end, so that the next test finds only what it started."""
        try:
            yield
        finally:
            for process in processes:
                process.kill()

    def name_of(self, process: Process) -> str:
        """The name under which a controller or worker registered; empty: it did not, or left."""
        return next((p.name for p in self._registered(process)), "")

    def detail_of(self, process: Process) -> dict[str, Any]:
        """What a controller or worker says of itself."""
        return next((p.detail for p in self._registered(process)), {})

    def _registered(self, process: Process) -> list[Registered]:
        return [p for p in self.store.processes.alive(process.role, seconds=600.0) if p.pid == process.pid]

    def study(self, name: str, trials: int, **search: Any) -> Study:
        """A new running study for rehearsing workers: its models and tasks are not there."""
        settings = {"strategy": "tpe", "trials": trials, "parallel": 2, "seed": 7} | search
        return create(self.store, make_spec(name=name, search=settings))

    def race(self, name: str, trials: int) -> Study:
        """A new running study whose trials race over 400 documents, for rehearsing workers."""
        settings = {"strategy": "tpe", "trials": trials, "parallel": 2, "seed": 7, "prune": "halving"}
        return create_race(self.store, make_spec(name=name, search=settings))

    def told(self, study: Study) -> int:
        """How many of its trials are told."""
        return sum(count for state, count in self.store.studies.counts(study.id).items() if state != "open")

    def wait_until_told(self, study: Study, trials: int) -> None:
        """Wait until that many of its trials are told."""
        self.wait_until(lambda: self.told(study) >= trials, f"{trials} trials of {study.name} are told")

    def wait_until(self, true: Callable[[], object], what: str, seconds: float = LIMIT_SECONDS) -> float:
        """Look until it is true, and patiently while the database is away; the seconds that took.

        Raises:
            AssertionError: it was not so in time.
        """
        began = time.monotonic()
        while True:
            try:
                if true():
                    return time.monotonic() - began
            except Exception as error:
                if not is_away(error):
                    raise
            assert time.monotonic() - began < seconds, f"after {seconds:.0f} s still not: {what}"
            time.sleep(LOOK_SECONDS)

    def logs(self) -> str:
        """The end of what each process printed."""
        shown = []
        for process in self.processes:
            state = "over" if process.is_over else "alive"
            text = process.log.read_text(errors="replace")[-SHOWN:]
            shown.append(f"--- {process.log.name} (process {process.pid}, {state})\n{text}")
        return "\n".join(shown)
