"""What a worker of the service is told. No torch, no Celery."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from db.records import DEFAULT_POOL, POOL
from merging.errors import InvalidInput
from workers.heart import LEASE_SECONDS
from workers.rehearsal import Rehearsal

TASK = "mergesearch.evaluate"
DEVICE = re.compile(r"cpu|cuda(:\d+)?")
DRAIN_SECONDS = 25.0


def queue_name(pool: str) -> str:
    """The queue of a pool: the workers of one class of device."""
    return f"mergesearch.{pool}"


@dataclass(frozen=True)
class WorkerServiceSettings:
    """One worker of the service.

    Attributes:
        database_url, redis_url: where they are.
        pools: whose evaluations it does.
        device: `cpu`, `cuda` or `cuda:N`.
        lease_seconds: how long its work stays its own when nothing is heard of it.
        drain_seconds: how long it may go on with what it does when it is asked to leave.
        refusal_seconds: how long it leaves a study to others that it could not open.
        threads: CPU threads of its own; None: as many as there are cores.
        set_up_logs: called first in each of the worker's processes; a function that pickles.
        rehearsal: scores recipes by a formula, without models; None: really.
        name: unique; empty: one is made.
    """

    database_url: str
    redis_url: str
    pools: tuple[str, ...] = (DEFAULT_POOL,)
    device: str = "cpu"
    lease_seconds: float = LEASE_SECONDS
    drain_seconds: float = DRAIN_SECONDS
    refusal_seconds: float = 60.0
    threads: int | None = None
    set_up_logs: Callable[[], None] | None = None
    rehearsal: Rehearsal | None = None
    name: str = ""

    def __post_init__(self) -> None:
        if not self.pools:
            raise InvalidInput("pools", None, "there is none", "name at least one, such as default")
        for pool in self.pools:
            check_pool(pool)
        if not DEVICE.fullmatch(self.device):
            raise InvalidInput("device", self.device, "is not known", "use cpu, cuda or cuda:N")


def check_pool(pool: str, key: str = "pools") -> None:
    """See that a pool's name is one.

    Raises:
        InvalidInput: it is not.
    """
    if not re.fullmatch(POOL, pool):
        raise InvalidInput(
            key, pool, "is no pool's name", "use up to 50 lower-case letters, digits, - and _, the first no sign"
        )
