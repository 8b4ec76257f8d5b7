"""The Celery application, for those who send messages and those who take them. Made by a call, not by an import.

A message carries an evaluation's id and is a hint: the database says what is true. So a message is over when it is
taken (late acknowledgement was measured to run work twice, and to loop on what kills its worker; early, to leave a
worker waiting for ever for an acknowledgement that a dying Redis did not take), no worker takes one before it is
free, and nothing is answered.
"""

from collections.abc import Sequence
from typing import Any

from celery import Celery
from kombu import Queue

from db.records import DEFAULT_POOL
from workers.settings import WorkerServiceSettings, queue_name

START_SECONDS = 120.0  # a fresh interpreter on a busy machine


def queue(pool: str) -> Any:
    """The queue of a pool."""
    name = queue_name(pool)
    return Queue(name, routing_key=name, no_ack=True)


def make_app(
    redis_url: str, pools: Sequence[str] = (DEFAULT_POOL,), timeout: float = 10.0, log: str | None = None
) -> Any:
    """An application that knows these pools' queues. It opens no connection.

    Args:
        timeout: seconds that Redis may take to answer.
        log: the class that sets up logging, by its place; None: Celery's own.
    """
    app = Celery("mergesearch", broker=redis_url, log=log, set_as_current=False, fixups=[])
    app.conf.update(
        accept_content=["json"],
        task_serializer="json",
        task_ignore_result=True,
        task_store_errors_even_if_ignored=False,
        task_acks_late=False,
        task_queues=[queue(pool) for pool in pools],
        task_default_queue=queue_name(pools[0]),
        task_create_missing_queues=False,
        task_publish_retry_policy={"max_retries": 1, "interval_start": 0, "interval_step": 0, "interval_max": 0},
        imports=("workers.task",),  # what a spawned child loads
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={
            "socket_timeout": timeout,
            "socket_connect_timeout": min(timeout, 3.0),
            "health_check_interval": 25,
            "retry_on_timeout": False,
        },
    )
    return app


def make_worker_app(settings: WorkerServiceSettings) -> Any:
    """The application of one worker; its child, which builds and scores, gets a copy with the settings in it."""
    app = make_app(settings.redis_url, settings.pools, log="workers.celery_worker:QuietLogging")
    app.conf.update(
        mergesearch=settings,
        worker_pool="prefork",
        worker_pool_start_method="spawn",  # CUDA and threads do not survive a fork
        worker_concurrency=1,
        worker_disable_prefetch=True,  # without it a busy worker takes all messages there are, and sits on them
        worker_proc_alive_timeout=START_SECONDS,
        worker_enable_remote_control=False,
        worker_send_task_events=False,
    )
    return app
