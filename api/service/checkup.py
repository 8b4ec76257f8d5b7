"""What `mergesearch doctor` says about a service: its database, broker, processes and folders."""

import os
from collections.abc import Iterator

from api.findings import Finding
from api.places import require_writable
from api.service.settings import PREFIX, ServiceSettings, load_settings
from db.schema import head
from db.store import Store, connect_store
from workers.dispatcher import CeleryDispatcher


def is_configured() -> bool:
    """Whether the environment speaks of a service."""
    return f"{PREFIX}DATABASE_URL" in os.environ


def check_up() -> Iterator[Finding]:
    """Look at the whole service; nothing is changed.

    Raises:
        MergesearchError: the settings or the database are such that there is nothing more to look at.
    """
    settings = load_settings()
    store = connect_store(settings.database_url)
    try:
        yield Finding("service database", "ok", f"answers, at version {head()}")
        yield _broker(settings)
        yield _controllers(store)
        yield _workers(store)
    finally:
        store.close()
    yield from _folders(settings)


def _broker(settings: ServiceSettings) -> Finding:
    dispatcher = CeleryDispatcher(settings.redis_url)
    depth = dispatcher.depth("default")
    dispatcher.close()
    if depth is None:
        return Finding("broker", "bad", "Redis does not answer; start it, or mend MERGESEARCH_REDIS_URL")
    return Finding("broker", "ok", f"Redis answers, {depth} messages wait in the pool default")


def _controllers(store: Store) -> Finding:
    age, alive = store.processes.seconds_since("controller"), store.processes.alive("controller")
    remedy = "start one with `mergesearch controller`"
    if age is None:
        return Finding("controller", "bad", f"none is here; {remedy}")
    if not alive:
        return Finding("controller", "bad", f"none was heard of for {age:.0f} s; {remedy}")
    return Finding("controller", "ok", f"{len(alive)} alive, last heard of {age:.0f} s ago")


def _workers(store: Store) -> Finding:
    alive = store.processes.alive("worker")
    wanted = {pool for _, pool in store.evaluations.queued()}
    served = {pool for process in alive for pool in process.detail.get("pools", ())}
    if missing := sorted(wanted - served):
        names = ", ".join(missing)
        return Finding("workers", "bad", f"work waits for pool {names}, which none serves; `mergesearch worker --pool`")
    if not alive:
        return Finding("workers", "warning", "none; start one on each machine with `mergesearch worker`")
    shown = ", ".join(sorted(f"{p.detail.get('device_name') or p.detail.get('device')} on {p.host}" for p in alive))
    return Finding("workers", "ok", shown)


def _folders(settings: ServiceSettings) -> Iterator[Finding]:
    if not settings.roots:
        remedy = "set MERGESEARCH_ROOTS to the folders that hold models and tasks"
        yield Finding("roots", "bad", f"none is permitted, so no study can name a model; {remedy}")
    for root in settings.roots:
        if root.is_dir():
            yield Finding("roots", "ok", f"{root} can be read")
        else:
            yield Finding("roots", "bad", f"{root} is no folder here; mend MERGESEARCH_ROOTS or mount it")
    require_writable("MERGESEARCH_EXPORTS", settings.exports, "name a folder that the service may write to")
    yield Finding("exports", "ok", f"{settings.exports.absolute()} can be written")
