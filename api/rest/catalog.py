"""Routes of what the service can do and with what: merge methods, workers."""

from fastapi import APIRouter, Depends

from api.rest import render
from api.rest.auth import require
from api.rest.documented import refusals
from api.rest.parts import Service
from api.rest.views import MergeMethod, Worker
from merging.catalog import CATALOG

router = APIRouter(prefix="/v1", tags=["service"], dependencies=[Depends(require("read"))])


@router.get("/methods", operation_id="list_methods", summary="List merge methods", responses=refusals())
def list_methods() -> list[MergeMethod]:
    """Every merge method with its parameters, their ranges, and its paper."""
    return [render.method(row) for row in CATALOG.values()]


@router.get("/workers", operation_id="list_workers", summary="List workers", responses=refusals())
def list_workers(service: Service) -> list[Worker]:
    """The worker processes that were heard of lately."""
    return [render.worker(process) for process in service.store.processes.alive("worker")]
