"""`mergesearch serve`: the REST API and the dashboard in one server. No torch here."""

import logging
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress

import uvicorn

from api.rest.app import create_app
from api.rest.dashboard import make_dashboard
from api.service.logs import set_up_logs
from api.service.settings import ServiceSettings
from db.store import Store, connect_store
from search.mirror import mirror_url
from workers.dispatcher import CeleryDispatcher

log = logging.getLogger(__name__)


class Server(uvicorn.Server):
    """Ends what waits for events before it waits for the answers that are still being sent."""

    def __init__(self, config: uvicorn.Config, end_waiting: Callable[[], None]) -> None:
        super().__init__(config)
        self._end_waiting = end_waiting

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let requests end, then end."""
        self._end_waiting()
        await super().shutdown(sockets)


def serve(settings: ServiceSettings) -> None:
    """Answer requests until told to stop.

    Raises:
        SchemaBehind, BrokenDatabase: the database is not ready.
    """
    set_up_logs(settings.log_format)
    store = connect_store(settings.database_url)
    dispatcher = CeleryDispatcher(settings.redis_url)
    app = create_app(
        settings,
        store,
        broker_healthy=lambda: dispatcher.depth("default") is not None,
        queue_depths=lambda: queue_depths(store, dispatcher),
        dashboard=make_dashboard(mirror_url(store.url), store.keys),
    )
    try:
        config = uvicorn.Config(
            app,
            host=settings.host,
            port=settings.port,
            log_config=None,
            access_log=False,  # the application writes its own, with ids
            timeout_graceful_shutdown=5,  # a slow download would keep it for ever
            proxy_headers=True,
        )
        server = Server(config, app.state.parts.bell.end)
        with suppress(KeyboardInterrupt):  # uvicorn raises it again, after all is done
            server.run()
        if not server.started:
            raise SystemExit(1)
    finally:
        dispatcher.close()
        store.close()


def queue_depths(store: Store, dispatcher: CeleryDispatcher) -> Mapping[str, int]:
    """Messages that wait, by pool, of the pools that have workers or work."""
    pools = {pool for process in store.processes.alive("worker") for pool in process.detail.get("pools", ())}
    pools |= {pool for _, pool in store.evaluations.queued()}
    depths = {pool: dispatcher.depth(pool) for pool in sorted(pools)}
    return {pool: depth for pool, depth in depths.items() if depth is not None}
