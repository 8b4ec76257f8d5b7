"""The one task, as the worker's child process runs it: an evaluation's id in, rows in the database out.

Importing it tells Celery its name; everything else is made when the first message comes.
"""

import logging
import os
import time
from typing import Any

from celery import Task, shared_task

from db.session import is_away
from db.store import Store, connect_store
from merging.errors import MergesearchError
from workers.benches import Benches, DeviceLost
from workers.evaluator import DEVICE_LOST, Evaluator
from workers.heart import Heart
from workers.host import cores
from workers.settings import TASK, WorkerServiceSettings

FACTS_SECONDS = 10.0
_log = logging.getLogger(__name__)


def owner_of(worker: str, pid: int) -> str:
    """Whose the leases of a worker's child are: the parent can name a child that is dead."""
    return f"{worker}/{pid}"


class Hand:
    """The child process: one database connection, one set of benches."""

    def __init__(self, settings: WorkerServiceSettings) -> None:
        self._settings = settings
        self._store = connect_store(settings.database_url)
        self._benches = _benches(settings, self._store)
        heart = Heart(self._store, seconds=settings.lease_seconds)
        owner = owner_of(settings.name, os.getpid())
        self._evaluator = Evaluator(self._store, self._benches, heart, owner, settings.refusal_seconds)
        self._told = 0.0

    def evaluate(self, evaluation_id: int) -> None:
        """Do one evaluation. Ends the process if the device is lost."""
        try:
            self._evaluator.evaluate(evaluation_id)
        except DeviceLost:
            os._exit(DEVICE_LOST)
        if time.monotonic() - self._told >= FACTS_SECONDS:
            self._told = time.monotonic()
            self._tell_facts()

    def _tell_facts(self) -> None:
        try:
            self._store.processes.beat(self._settings.name, "worker", dict(self._benches.facts()))
        except Exception as error:  # the evaluation is done all the same
            _log.warning("the device's facts were not told: %s", error, extra={"action": "worker.facts"})


class EvaluationTask(Task):  # type: ignore[misc]  # celery has no types
    """Keeps what its process needs from message to message."""

    name = TASK
    Request = "workers.request:EvaluationRequest"
    hand: Hand | None = None

    def do(self, evaluation_id: int) -> None:
        """Do one evaluation; what goes wrong is logged, and the controller sends the message again."""
        try:
            if self.hand is None:
                self.hand = Hand(self.app.conf.mergesearch)
            self.hand.evaluate(evaluation_id)
        except Exception as error:
            known = is_away(error) or isinstance(error, MergesearchError)
            about = {"action": "evaluation.given_up", "evaluation": evaluation_id}
            _log.error("given up: %s", error, exc_info=not known, extra=about)


def _evaluate(task: Any, evaluation_id: int) -> None:
    task.do(evaluation_id)


evaluate = shared_task(bind=True, base=EvaluationTask, name=TASK)(_evaluate)


def _benches(settings: WorkerServiceSettings, store: Store) -> Benches:
    if settings.rehearsal is not None:
        from workers.rehearsal import RehearsalBenches

        return RehearsalBenches(store, settings.rehearsal)
    from workers.torch_setup import prepare_torch

    prepare_torch(settings.threads or cores())
    from workers.model_bench import ModelBenches

    return ModelBenches(store, "cpu" if settings.device == "cpu" else "cuda:0")
