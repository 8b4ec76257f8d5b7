"""A study's event stream, read without gaps or repeats however often the connection breaks."""

import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from api.client.problems import ServiceError
from api.client.wire import Wire

OVER = ("finished", "failed", "cancelled")
_SILENCE_SECONDS = 45.0  # the service says something every 15
_WELL_SECONDS = 10.0  # a connection that lasted so long was a good one, even if nothing happened
_PAUSE_SECONDS = 1.0


@dataclass(frozen=True)
class StudyEvent:
    """Something that happened in a study.

    Attributes:
        seq: its number; None for `progress`, which only says how far running evaluations are.
    """

    seq: int | None
    kind: str
    data: dict[str, Any]


@dataclass(frozen=True)
class Message:
    """One server-sent event as it came."""

    id: str
    event: str
    data: str


def follow(wire: Wire, study: str, after: int, *, progress: bool) -> Iterator[StudyEvent]:
    """The events that follow number `after`, and those to come, until the study is over.

    Args:
        study: path of the study.

    Raises:
        MergesearchError: the service refuses, or is away for longer than our patience.
    """
    seen, over, patience = after, False, wire.patience()
    while True:
        began = time.monotonic()
        try:
            for event in _connection(wire, study, seen, progress=progress):
                patience.renew()
                if event.seq is not None:
                    if event.seq <= seen:
                        continue
                    seen = event.seq
                    if event.kind == "study.state":  # the last counts: a failed study may have been resumed since
                        over = event.data.get("state") in OVER
                yield event
        except ServiceError as error:
            if time.monotonic() - began > _WELL_SECONDS:
                patience.renew()
            patience.bear(error)
            continue
        if over:
            return
        # an end in good order before the study's: the service is being restarted, or the study was over before
        over = wire.ask_patiently(study)["state"] in OVER
        if not over:
            time.sleep(_PAUSE_SECONDS)


def _connection(wire: Wire, study: str, seen: int, *, progress: bool) -> Iterator[StudyEvent]:
    headers = {"Accept": "text/event-stream", "Last-Event-ID": str(seen)}
    params = {"progress": "true"} if progress else None
    with wire.stream(f"{study}/events", params=params, headers=headers, silence=_SILENCE_SECONDS) as response:
        for message in messages(response.iter_bytes()):
            yield _event(message)


def _event(message: Message) -> StudyEvent:
    try:
        data = json.loads(message.data)
        return StudyEvent(int(message.id) if message.id else None, message.event, dict(data))
    except (ValueError, TypeError) as error:
        raise ServiceError(f"the event stream holds {message.data[:100]!r}; is it mergesearch's?") from error


def messages(chunks: Iterable[bytes]) -> Iterator[Message]:
    """Server-sent events from the bytes of a stream; one that is not complete at the end is none."""
    found: dict[str, str] = {}
    data: list[str] = []
    for line in _lines(chunks):
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            data.append(value)
        elif name in ("id", "event"):
            found[name] = value
        elif not line:
            if data:
                yield Message(found.get("id", ""), found.get("event", "message"), "\n".join(data))
            found, data = {}, []


def _lines(chunks: Iterable[bytes]) -> Iterator[str]:
    """Whole lines. Split at line feeds alone: JSON may hold characters that `splitlines` takes for ends."""
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield line.removesuffix(b"\r").decode(errors="replace")
