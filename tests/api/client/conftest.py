"""A service on a real socket with a clerk that needs no models, and a way to it that breaks."""

import os
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from api.client.remote import Remote
from db.records import JobLease, Study
from db.store import Store
from evaluation.result import Infeasible
from merging.errors import Conflict, InvalidStudy
from search.verdict import Against, Finalist, TaskPair, Verdict
from tests.api.rest.conftest import Site, a_study, check, clerk_of, served, site_on, told_trial
from tests.search.factories import leading, scored

WEIGHTS = os.urandom(1_000_000)
FILES = {"config.json": b"{}", "model.safetensors": WEIGHTS, "more/empty": b"", "more/odd näme #1?.txt": b"odd"}


@dataclass
class Cutter:
    """Passes connections on to a service and breaks each after so many bytes of answers.

    Attributes:
        budgets: bytes of the connections to come; once they are used up, connections hold.
        passed: bytes that came through, of all connections.
    """

    port: int
    budgets: list[int] = field(default_factory=list)
    passed: int = 0
    connections: int = 0

    def pass_on(self, client: socket.socket) -> None:
        self.connections += 1
        left = self.budgets.pop(0) if self.budgets else None
        with suppress(OSError), client, socket.create_connection(("127.0.0.1", self.port)) as server:
            back = threading.Thread(target=_pump, args=(client, server))
            back.start()
            with suppress(OSError):
                while (left is None or left > 0) and (data := server.recv(4096 if left is None else min(left, 4096))):
                    client.sendall(data)
                    self.passed += len(data)
                    left = None if left is None else left - len(data)
            if left is not None and left <= 0:  # as a connection breaks: without a goodbye
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            with suppress(OSError):
                client.shutdown(socket.SHUT_RD)
            with suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)
            back.join()


def _pump(source: socket.socket, to: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(4096):
            to.sendall(data)
        to.shutdown(socket.SHUT_WR)


@contextmanager
def cutting(port: int) -> Iterator[tuple[Cutter, str]]:
    """A cutter before the service on that port, and its address."""
    cutter = Cutter(port)
    listener = socket.create_server(("127.0.0.1", 0))
    threads = []

    def accept() -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                threads.append(threading.Thread(target=cutter.pass_on, args=(client,), daemon=True))
                threads[-1].start()

    accepting = threading.Thread(target=accept, daemon=True)
    accepting.start()
    try:
        yield cutter, f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        accepting.join()
        for thread in threads:
            thread.join(10)


@dataclass
class Running:
    """A running service: its parts, its address, and a client of it for each key."""

    site: Site
    address: str
    cutter: Cutter
    cut_address: str

    @property
    def store(self) -> Store:
        return self.site.store

    def remote(self, scope: str = "run", *, cut: bool = False, patience: float = 20.0) -> Remote:
        return Remote(self.cut_address if cut else self.address, self.site.keys[scope], patience=patience)


@contextmanager
def running_on(store: Store, folder: Path, **settings: Any) -> Iterator[Running]:
    with (
        site_on(store, folder, **settings) as site,
        clerk_of(site, {"check": _check, "export": _export}),
        served(site) as address,
        cutting(int(address.rpartition(":")[2])) as (cutter, cut_address),
    ):
        store.processes.beat("worker", "worker", {"pools": ["default"]})
        yield Running(site, address, cutter, cut_address)


@pytest.fixture
def running(any_store: Store, tmp_path: Path) -> Iterator[Running]:
    with running_on(any_store, tmp_path) as service:
        yield service


def _check(site: Site, lease: JobLease) -> dict[str, Any]:
    task = lease.job.content["spec"]["evaluation"]["tasks"][0]["name"]
    if task == "unknown":
        raise InvalidStudy("evaluation.tasks[0].name", task, "is unknown to lm-eval", "name one that it lists")
    return check(site, lease)


def _export(site: Site, lease: JobLease) -> dict[str, Any]:
    if lease.job.content["trial"] == 0:
        raise Conflict("the models of study 'test' have changed since it ran; what was scored cannot be built")
    place = site.settings.exports / str(lease.job.id)
    for name, content in FILES.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(content)
    listed = [
        {"name": name, "bytes": len(content), "sha256": sha256(content).hexdigest()} for name, content in FILES.items()
    ]
    return {"folder": str(place), "files": listed}


def finish(store: Store, study: Study) -> None:
    """Two complete trials, an infeasible one, and a verdict that can be shown."""
    told_trial(store, study, 0, scored(0.25))
    told_trial(store, study, 1, scored(0.75))
    told_trial(store, study, 2, Infeasible(why="NaN in the head"))
    tasks = {"t": TaskPair(metric="acc", search=0.5, search_stderr=None, holdout=0.5, holdout_stderr=None)}
    ahead = Against(difference=0.4, low=0.3, high=0.5, p_value=0.0001)
    common: dict[str, Any] = {"recipe_digest": "d", "low": 0.1, "high": 0.9, "tasks": tasks}
    finalists = (
        Finalist(label="expert:a", trial=0, search=0.25, holdout=0.2, winner_minus_this=ahead, **common),
        Finalist(label="random", trial=1, search=0.75, holdout=0.6, winner_minus_this=None, **common),
    )
    documents = {"search": 8, "holdout": 4}
    verdict = Verdict(
        objective="mean", finalists=finalists, winner=1, best_expert=0, documents=documents, trials=12, missing={}
    )
    store.studies.finish(leading(store, study.id), verdict.model_dump(mode="json", by_alias=True))


@pytest.fixture
def finished(running: Running) -> Running:
    """A service with the finished study `test`."""
    finish(running.store, a_study(running.store))
    return running
