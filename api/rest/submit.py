"""Submitting a study: checked here as far as text and paths go, by a clerk in full, and only then created."""

import json
import time
from hashlib import sha256
from typing import Any

from starlette.concurrency import run_in_threadpool

from api.rest.bodies import Body, Unreadable, content
from api.rest.confine import confined, confining
from api.rest.parts import Parts
from api.rest.permit import require_permitted
from api.rest.problems import Refused
from db.jobs import Idempotency
from db.records import ApiKey, Job
from db.studies import NameTaken
from search.study import parse_study

_LONGEST_LOOK, _FIRST_LOOK = 1.0, 0.05


def begin_submission(service: Parts, key: ApiKey, body: Body, named: str | None) -> Job:
    """Queue the full check of a study.

    Args:
        named: the Idempotency-Key, if one was sent: the job of the same request before is then the answer.

    Raises:
        InvalidInput: the study cannot work, or the key names another request.
        NameTaken: the name is taken.
        Refused: nobody is there to check it.
    """
    asked = content(body, yaml_too=True)
    idempotency = idempotent(key, named, "submit", asked)
    earlier = idempotency and service.store.jobs.earlier(idempotency)
    if earlier:
        return earlier
    roots = service.settings.roots
    spec = confined(parse_study(asked, confining(roots)), roots)
    require_permitted(spec, service.settings.judge_hosts)
    if service.store.studies.find(spec.name) is not None:
        raise NameTaken(spec.name)
    if not service.store.processes.alive("controller"):
        detail = "no controller is running to check and lead the study; nothing was created"
        remedy = "start one with `mergesearch controller`, then submit again"
        raise Refused(503, "unavailable", f"{detail}; {remedy}", headers={"Retry-After": "10"}, remedy=remedy)
    return service.store.jobs.add("check", {"spec": spec.to_json()}, idempotency=idempotency)


def idempotent(key: ApiKey, named: str | None, operation: str, asked: Any) -> Idempotency | None:
    """What makes the request be done once, if its sender gave it a name.

    Raises:
        Unreadable: the name is no plain text.
    """
    if named is None:
        return None
    if not 1 <= len(named) <= 255 or not named.isascii() or not named.isprintable():
        raise Unreadable("Idempotency-Key", ascii(named)[:50], "is no key", "use 1 to 255 plain characters")
    text = json.dumps([operation, asked], sort_keys=True, separators=(",", ":"))
    return Idempotency(key.prefix, named, sha256(text.encode()).hexdigest())


async def settled(service: Parts, job: Job) -> Job:
    """The job once it is over, or as it is after `submit_wait_seconds`.

    Waits without a thread or a database connection of its own: many may wait at once.
    """
    until = time.monotonic() + service.settings.submit_wait_seconds
    look = _FIRST_LOOK
    with service.bell.listen() as listener:
        while job.state in ("queued", "leased") and not service.bell.closed:
            left = until - time.monotonic()
            if left <= 0:
                break
            await listener.wait(min(left, look))
            look = min(2 * look, _LONGEST_LOOK)
            job = await run_in_threadpool(service.store.jobs.get, job.id, job.kind)
    return job
