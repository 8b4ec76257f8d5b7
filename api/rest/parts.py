"""What the routes work with, in one record on the application."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, cast

from fastapi import Depends, Request

from api.rest.bell import Bell
from api.rest.limits import Buckets
from api.service.settings import ServiceSettings
from db.store import Store


@dataclass(frozen=True)
class Parts:
    """The service's parts.

    Attributes:
        bell: rings when something has happened in a study or with a job.
        requests: how often each key asks.
        failures: how often each address comes with no key, or a wrong one.
        broker_healthy: whether messages can be sent to workers; None where there is no broker.
    """

    settings: ServiceSettings
    store: Store
    bell: Bell
    requests: Buckets
    failures: Buckets
    broker_healthy: Callable[[], bool] | None


async def parts_of(request: Request) -> Parts:
    """The parts of the application that handles the request."""
    return cast(Parts, request.app.state.parts)


Service = Annotated[Parts, Depends(parts_of)]
