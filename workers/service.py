"""One worker of the service: a Celery worker whose one child process builds and scores.

parent   takes messages, knows no torch, keeps the registration and the drain (`workers.keeper`)
child    does the evaluations (`workers.task`); when it dies the parent starts another
"""

import logging
import os
from dataclasses import replace

from db.store import Store, connect_store
from workers.devices import visible
from workers.host import owner_name
from workers.keeper import Keeper
from workers.settings import WorkerServiceSettings

_log = logging.getLogger(__name__)


def run_worker(settings: WorkerServiceSettings) -> int:
    """Work until asked to leave by SIGTERM or SIGINT.

    Returns:
        The process's exit code.

    Raises:
        InvalidInput: the device is not there, or the database cannot be used.
        SchemaBehind: the database must be migrated first.
    """
    if settings.set_up_logs is not None:
        settings.set_up_logs()
        logging.captureWarnings(True)
    if settings.device != "cpu" and settings.rehearsal is None:
        os.environ["CUDA_VISIBLE_DEVICES"] = visible(settings.device)  # before anything loads torch
    settings = replace(settings, name=settings.name or owner_name())
    store = connect_store(settings.database_url)
    try:
        return _work(settings, store)
    finally:
        store.close()


def _work(settings: WorkerServiceSettings, store: Store) -> int:
    from workers.celery_app import make_worker_app
    from workers.celery_worker import ServiceWorker

    app = make_worker_app(settings)
    app.set_current()
    worker = ServiceWorker(app, settings.name)
    app.keeper = keeper = Keeper(store, settings, worker)
    keeper.start()
    about = {"action": "worker.began", "worker": settings.name}
    _log.info("worker of pools %s on %s", ", ".join(settings.pools), settings.device, extra=about)
    try:
        worker.start()
    finally:
        keeper.close()
        app.close()
    _log.info("worker left", extra={"action": "worker.left", "worker": settings.name})
    return int(worker.exitcode or 0)
