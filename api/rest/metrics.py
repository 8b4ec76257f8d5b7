"""Numbers for Prometheus: what the database holds, read when they are asked for, and the requests of this process."""

import logging
from collections import Counter as Tally
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from fastapi import APIRouter, Depends, Response
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from api.rest.auth import require
from api.rest.documented import refusals
from db.metrics import Counts
from db.records import Process
from db.store import Store

log = logging.getLogger("mergesearch.api")
_SECONDS = (0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 60.0)


class Requests:
    """The HTTP requests of this process, by route template."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._count = Counter("mergesearch_http_requests", "requests", ["method", "route", "status"], registry=registry)
        self._seconds = Histogram(
            "mergesearch_http_request_seconds", "seconds to answer", ["route"], registry=registry, buckets=_SECONDS
        )

    def count(self, method: str, route: str, status: int, seconds: float) -> None:
        """One was answered."""
        known = method if method in ("GET", "HEAD", "POST", "DELETE", "PUT", "PATCH", "OPTIONS") else "other"
        self._count.labels(known, route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)


class StoreCollector(Collector):
    """What the database holds, read at each scrape."""

    def __init__(self, store: Store, queue_depths: Callable[[], Mapping[str, int]] | None) -> None:
        self._store, self._queue_depths = store, queue_depths

    def describe(self) -> list[Metric]:
        """Nothing: so that registering it reads nothing."""
        return []

    def collect(self) -> Iterator[Metric]:
        """The numbers now."""
        counts = self._store.metrics.read()
        yield from _states(counts)
        yield from _sums(counts)
        waiting = Tally(pool for _, pool in self._store.evaluations.queued())
        yield _gauge(
            "queued_evaluations", "evaluations that wait for a worker", ["pool"], {(p,): n for p, n in waiting.items()}
        )
        yield from self._depths()
        workers = self._store.processes.alive("worker")
        yield from _memory(workers)
        alive = {(role,): len(self._store.processes.alive(role)) for role in ("controller", "clerk")}
        yield _gauge("processes", "live processes", ["role"], alive | {("worker",): len(workers)})

    def _depths(self) -> Iterator[Metric]:
        if self._queue_depths is None:
            return
        try:
            depths = self._queue_depths()
        except Exception:  # the rest is worth having all the same
            log.warning("the broker cannot be asked", exc_info=True, extra={"action": "metrics"})
            return
        yield _gauge("queue_depth", "messages that wait in the broker", ["pool"], {(p,): n for p, n in depths.items()})


def _states(counts: Counts) -> Iterator[Metric]:
    for name, by_state in (("studies", counts.studies), ("trials", counts.trials), ("evaluations", counts.evaluations)):
        yield _gauge(name, f"{name} by state", ["state"], {(state,): n for state, n in by_state.items()})
    yield _gauge("jobs", "desk jobs by kind and state", ["kind", "state"], counts.jobs)
    yield _gauge("tokens_per_second", "of all running evaluations together", [], {(): counts.tokens_per_second})


def _sums(counts: Counts) -> Iterator[Metric]:
    said = {
        "evaluations_scored": ("evaluations with a score", counts.scored),
        "build_seconds": ("seconds spent on building candidates", counts.build_seconds),
        "score_seconds": ("seconds spent on scoring candidates", counts.score_seconds),
        "tokens": ("tokens spent on scoring", counts.tokens),
        "documents_reused": ("documents not scored, for their items were known already", counts.reused),
        "lease_expiries": ("leases that ran out: their workers died or hung", counts.counters.get("lease_expiries", 0)),
        "asks": ("trials that were proposed", counts.counters.get("asks", 0)),
        "ask_seconds": ("seconds spent on proposing them", counts.counters.get("ask_seconds", 0)),
    }
    for name, (about, value) in said.items():
        yield CounterMetricFamily(f"mergesearch_{name}", about, value=value)


def _memory(workers: tuple[Process, ...]) -> Iterator[Metric]:
    for key in ("memory_used", "memory_total"):
        found = {(w.name, str(w.detail.get("device"))): w.detail[key] for w in workers if w.detail.get(key) is not None}
        yield _gauge(f"device_{key}_bytes", "memory of a worker's device", ["worker", "device"], found)


def _gauge(name: str, about: str, labels: list[str], values: Mapping[Any, float]) -> Metric:
    family = GaugeMetricFamily(f"mergesearch_{name}", about, labels=labels)
    for key, value in values.items():
        family.add_metric(list(key), value)
    return family


def metrics_router(registry: CollectorRegistry, *, is_open: bool) -> APIRouter:
    """The route that Prometheus reads; it needs a key unless it is open."""
    router = APIRouter(tags=["service"], dependencies=[] if is_open else [Depends(require("read"))])

    @router.get(
        "/metrics",
        operation_id="get_metrics",
        summary="Numbers for Prometheus",
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **({} if is_open else refusals())},
    )
    def get_metrics() -> Response:
        """Trials by state, queues, leases, seconds, tokens, memory, requests."""
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    return router
