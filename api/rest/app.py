"""The service's application: the one place where its parts are put together. Nothing here imports torch."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI
from prometheus_client import CollectorRegistry
from starlette.types import ASGIApp

from api.rest import catalog, events, exports, health, studies
from api.rest.bell import Bell
from api.rest.documented import document
from api.rest.envelope import Envelope
from api.rest.handlers import Elsewhere, add_handlers
from api.rest.limits import BodyLimit, Buckets
from api.rest.metrics import Requests, StoreCollector, metrics_router
from api.rest.parts import Parts
from api.service.settings import ServiceSettings
from db.session import is_away
from db.store import Store

_ABOUT = "Finds the best merge of a set of fine-tuned checkpoints. Errors are RFC 9457 problems; lists come in parts."


def create_app(
    settings: ServiceSettings,
    store: Store,
    *,
    broker_healthy: Callable[[], bool] | None = None,
    queue_depths: Callable[[], Mapping[str, int]] | None = None,
    dashboard: ASGIApp | None = None,
) -> FastAPI:
    """The application.

    Args:
        broker_healthy: whether messages can be sent to workers; None: there is no broker.
        queue_depths: number of messages that wait, by pool; None: there is no broker.
        dashboard: gets every path that is not of the API.
    """
    per_minute = settings.requests_per_minute
    app = _bare_app()
    app.state.parts = Parts(
        settings,
        store,
        Bell(store),
        Buckets(per_minute),
        Buckets(max(1, per_minute // 10)),
        broker_healthy,
    )
    registry = CollectorRegistry()
    registry.register(StoreCollector(store, queue_depths))
    for router in (studies.router, events.router, exports.router, catalog.router, health.router):
        app.include_router(router)
    app.include_router(metrics_router(registry, is_open=settings.metrics_open))
    app.router.default = Elsewhere(dashboard)
    add_handlers(app)
    app.add_middleware(BodyLimit, most=settings.max_body_bytes)
    app.add_middleware(Envelope, is_away=is_away, count=Requests(registry).count)
    return app


def _bare_app() -> FastAPI:
    app = FastAPI(
        title="mergesearch",
        version=version("mergesearch"),
        description=_ABOUT,
        openapi_url="/v1/openapi.json",
        docs_url=None,  # its page loads scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
        lifespan=_lifespan,
    )
    app.openapi = lambda: document(app)  # type: ignore[method-assign]
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    yield
    app.state.parts.bell.close()
