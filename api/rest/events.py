"""The stream of what happens in a study, as server-sent events. Cut off, it goes on where it was."""

import time
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query
from fastapi.sse import EventSourceResponse, ServerSentEvent
from starlette.concurrency import run_in_threadpool

from api.rest import render
from api.rest.auth import MayRead
from api.rest.documented import refusals
from api.rest.parts import Parts, Service
from api.rest.studies import Named
from db.records import ApiKey, Event
from db.session import is_away
from merging.errors import InvalidInput

router = APIRouter(prefix="/v1", tags=["studies"])
_OVER = ("finished", "failed", "cancelled")
_PART = 500
_PROGRESS_SECONDS, _LONGEST_LOOK = 1.0, 5.0
_RETRY_MILLISECONDS = 2000


class BadEventId(InvalidInput):
    """An event id that no stream has given."""


def seen_before(
    after: Annotated[int | None, Query(ge=0, le=2**31 - 1, description="only events after this one")] = None,
    last_event_id: Annotated[str | None, Header(description="as `after`; sent by clients that reconnect")] = None,
) -> int:
    """The number of the last event that the client has seen; the header, if there is one, is the newer word.

    Raises:
        BadEventId: the header holds no such number.
    """
    if not last_event_id:
        return after or 0
    if not (last_event_id.isascii() and last_event_id.isdigit() and len(last_event_id) < 10):
        raise BadEventId("Last-Event-ID", last_event_id, "is no event's id", "send the last `id` of the stream")
    return int(last_event_id)


@router.get(
    "/studies/{name}/events",
    operation_id="stream_events",
    summary="Follow a study",
    response_class=EventSourceResponse,
    responses=refusals(404),
)
async def stream_events(
    study: Named,
    service: Service,
    key: MayRead,
    seen: Annotated[int, Depends(seen_before)],
    progress: Annotated[bool, Query(description="also send `progress` events, at most one a second")] = False,
) -> AsyncIterator[ServerSentEvent]:
    """What happened in the study from the beginning, and what happens, until it is finished, failed or cancelled.

    Each event has a number as its `id`. Sent back as `Last-Event-ID` it resumes the stream without a gap.
    Events named `progress` are no part of that: they have no id and say how far running evaluations are.
    The stream also ends when its key is revoked or expires.
    """
    yield ServerSentEvent(comment=f"study {study.name}", retry=_RETRY_MILLISECONDS)
    shown, shown_at = None, 0.0
    with service.bell.listen() as listener:
        while not service.bell.closed:
            over, events = await _what_is_new(service, key, study.id, seen)
            for event in events:
                yield ServerSentEvent(event=event.kind, id=str(event.seq), data=_data(event))
                seen = event.seq
            if len(events) == _PART:
                continue
            if over:
                return
            if progress and time.monotonic() - shown_at >= _PROGRESS_SECONDS:
                now, shown_at = await _progress(service, study.id), time.monotonic()
                if now != shown:
                    yield ServerSentEvent(event="progress", data={"running": now})
                shown = now
            await listener.wait(_PROGRESS_SECONDS if progress else _LONGEST_LOOK)


async def _what_is_new(service: Parts, key: ApiKey, study_id: int, seen: int) -> tuple[bool, tuple[Event, ...]]:
    """Whether the stream is over, and events. The state is read first: what follows an end is then among them."""

    def read() -> tuple[bool, tuple[Event, ...]]:
        if service.store.keys.by_prefix(key.prefix) is None:
            return True, ()
        over = service.store.studies.by_id(study_id).state in _OVER
        return over, service.store.events.after(study_id, seen, _PART)

    try:
        return await run_in_threadpool(read)
    except Exception as error:
        if not is_away(error):
            raise
        return False, ()  # the stream outlives a restart of the database


async def _progress(service: Parts, study_id: int) -> list[dict[str, Any]]:
    try:
        found = await run_in_threadpool(render.running, service.store, study_id)
    except Exception as error:
        if not is_away(error):
            raise
        return []
    return [evaluation.model_dump(mode="json") for evaluation in found]


def _data(event: Event) -> dict[str, Any]:
    return {"at": render.when(event.created_at).isoformat(), **event.data}
