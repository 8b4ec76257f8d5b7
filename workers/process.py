"""A worker process of the embedded pool: waits for ids on a pipe, claims, builds, scores, writes the outcome."""

import os
import signal
import sys
import traceback
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from db.store import open_store
from merging.errors import MergesearchError
from workers.benches import DeviceLost
from workers.evaluator import DEVICE_LOST, Evaluator
from workers.heart import Heart
from workers.host import die_with_parent


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


def run(pipe: "Connection[Any, Any]", settings: WorkerSettings) -> None:
    """The process's main function. Messages to the parent: ready, broken, progress, idle."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends us
    die_with_parent()
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
    from workers.torch_setup import prepare_torch

    prepare_torch(settings.threads)
    from workers.model_bench import ModelBenches

    def progress(evaluation_id: int, done: int, total: int) -> None:
        pipe.send(("progress", evaluation_id, done, total))

    store = open_store(settings.url)
    benches = ModelBenches(store, settings.device)
    evaluator = Evaluator(store, benches, Heart(store, progress), settings.owner)
    try:
        benches.bench(settings.study_id)  # a study that cannot be worked on is no fault of its candidates
        pipe.send(("ready",))
        while True:
            evaluation_id = pipe.recv()
            evaluator.evaluate(evaluation_id)
            pipe.send(("idle", evaluation_id))
    except DeviceLost:
        traceback.print_exc()
        os._exit(DEVICE_LOST)


def _send_output_to(log: Path) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
        os.dup2(descriptor, stream.fileno())
    os.close(descriptor)
