"""Whether the service lives and can work, for those who restart it and those who send requests to it.

No key is needed, so nothing is said here that a stranger may not know.
"""

import logging

from fastapi import APIRouter, Response

from api.rest.parts import Parts, Service
from api.rest.views import Check, Health, Readiness
from db.processes import ALIVE_SECONDS
from db.session import BrokenDatabase, is_away
from merging.errors import Conflict

router = APIRouter(tags=["service"])
log = logging.getLogger("mergesearch.api")


@router.get("/healthz", operation_id="get_health", summary="Whether the process answers")
async def get_health() -> Health:
    """Always ok, if it is answered at all."""
    return Health()


@router.get(
    "/readyz",
    operation_id="get_readiness",
    summary="Whether the service can work",
    responses={503: {"model": Readiness, "description": "It cannot"}},
)
def get_readiness(service: Service, response: Response) -> Readiness:
    """Database, its schema, a controller, the broker. Without the broker everything still happens, only later."""
    checks = _database(service)
    if all(check.ok for check in checks.values()):
        checks["controller"] = _controller(service)
    ready = all(check.ok for check in checks.values())
    if service.broker_healthy is not None:
        checks["broker"] = _broker(service)
    response.status_code = 200 if ready else 503
    healthy = all(check.ok for check in checks.values())
    return Readiness(status="unready" if not ready else "ready" if healthy else "degraded", checks=checks)


def _database(service: Parts) -> dict[str, Check]:
    try:
        service.store.check()
    except BrokenDatabase:
        log.warning("the database cannot be used", exc_info=True, extra={"action": "readyz"})
        return {"database": Check(ok=False, detail="it cannot be used")}
    except Conflict:
        schema = Check(ok=False, detail="not at this service's version; run `mergesearch migrate`")
        return {"database": Check(ok=True, detail="it answers"), "schema": schema}
    except Exception as error:
        if not is_away(error):
            raise
        return {"database": Check(ok=False, detail="it does not answer")}
    up_to_date = Check(ok=True, detail="at this service's version")
    return {"database": Check(ok=True, detail="it answers"), "schema": up_to_date}


def _controller(service: Parts) -> Check:
    seconds = service.store.processes.seconds_since("controller")
    if seconds is None:
        return Check(ok=False, detail="none is running; start `mergesearch controller`")
    return Check(ok=seconds < ALIVE_SECONDS, detail=f"heard of {max(0.0, seconds):.0f} s ago")


def _broker(service: Parts) -> Check:
    assert service.broker_healthy is not None
    try:
        ok = service.broker_healthy()
    except Exception:
        log.warning("the broker cannot be asked", exc_info=True, extra={"action": "readyz"})
        ok = False
    return Check(ok=ok, detail="it answers" if ok else "it does not answer: trials begin later than they could")
