"""A worker process of the embedded pool: waits for ids on a pipe, claims, builds, scores, writes the outcome."""

import os
import signal
import socket
import sys
import threading
import traceback
import uuid
from dataclasses import dataclass
from multiprocessing import parent_process
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from db.store import Store, open_store
from merging.errors import MergesearchError

DEVICE_LOST = 70  # exit code


@dataclass(frozen=True)
class WorkerSettings:
    """What a worker process needs to know.

    Attributes:
        url: the database's.
        threads: CPU threads of its own.
        log: the file that everything its libraries print goes to.
    """

    url: str
    study_id: int
    device: str
    threads: int
    log: Path
    owner: str


def owner_name() -> str:
    """A name no other worker has."""
    return f"{socket.gethostname()}:{uuid.uuid4().hex[:12]}"


def run(pipe: "Connection[Any, Any]", settings: WorkerSettings) -> None:
    """The process's main function. Messages to the parent: ready, broken, progress, idle."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends us
    threading.Thread(target=_die_with_parent, name="orphan", daemon=True).start()
    _send_output_to(settings.log)
    try:
        _work(pipe, settings)
    except (EOFError, BrokenPipeError):
        return  # the parent is gone
    except MergesearchError as error:
        pipe.send(("broken", str(error)))
    except Exception as error:
        traceback.print_exc()
        pipe.send(("broken", f"{type(error).__name__}: {error} (see {settings.log})"))


def _work(pipe: "Connection[Any, Any]", settings: WorkerSettings) -> None:
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that spin while they wait starve the other workers
    import torch
    from tqdm import tqdm

    torch.set_num_threads(settings.threads)
    tqdm.set_lock(threading.RLock())  # its own lock is a semaphore that a killed worker leaves behind
    from evaluation.quiet import quiet_libraries

    quiet_libraries()
    store = open_store(settings.url)
    try:
        _serve(pipe, settings, store)
    except torch.AcceleratorError:  # nothing will work on the device in this process any more
        traceback.print_exc()
        os._exit(DEVICE_LOST)


def _serve(pipe: "Connection[Any, Any]", settings: WorkerSettings, store: Store) -> None:
    from workers.bench import Bench, LeaseLost, attempt
    from workers.heart import Heart

    bench = Bench(store.studies.by_id(settings.study_id), store, settings.device)
    heart = Heart(store, lambda evaluation_id, done, total: pipe.send(("progress", evaluation_id, done, total)))
    pipe.send(("ready",))
    while True:
        evaluation_id = pipe.recv()
        lease = store.evaluations.claim(evaluation_id, settings.owner, heart.seconds)
        if lease is not None:
            try:
                with heart.beating(lease) as progress:
                    outcome = attempt(bench, lease, progress)
                store.evaluations.finish(lease, outcome)
            except LeaseLost:
                pass  # somebody else has it now
        pipe.send(("idle", evaluation_id))


def _die_with_parent() -> None:
    """A worker whose parent was killed would only hold memory and finish what nobody waits for."""
    parent = parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _send_output_to(log: Path) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
        os.dup2(descriptor, stream.fileno())
    os.close(descriptor)
