"""Sends what is queued in the database to the workers of its pool, as messages through Redis.

A message is a hint. It may be lost (Redis wiped, a worker dead before it looked): then the same id is sent again
when its pool's queue is found empty while the database still says queued. It may come twice: then the second
finds the work taken. No torch here: the controller uses it.
"""

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from kombu.exceptions import OperationalError
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from workers.celery_app import make_app, queue
from workers.settings import TASK, queue_name

ANSWER_SECONDS = 0.5
_log = logging.getLogger(__name__)


class CeleryDispatcher:
    """Messages for all studies of one controller process. No method raises because of Redis, or waits long for it.

    Args:
        again_seconds: how long after its last message an id may be sent again.

    Attributes:
        healthy: whether Redis answered the last time.
    """

    def __init__(self, redis_url: str, again_seconds: float = 2.0, clock: Callable[[], float] = time.monotonic) -> None:
        self.healthy = True
        self._again, self._clock = again_seconds, clock
        self._sent: dict[int, float] = {}  # when, by id
        self._app = make_app(redis_url, timeout=ANSWER_SECONDS)
        limits = {"socket_timeout": ANSWER_SECONDS, "socket_connect_timeout": ANSWER_SECONDS}
        # one more try at once: an idle connection may have died with a Redis that was restarted since
        self._redis = Redis.from_url(redis_url, retry=Retry(NoBackoff(), 1), **limits)
        self._queues: dict[str, Any] = {}

    def publish(self, pairs: Sequence[tuple[int, str]], *, all_queued: bool = True) -> None:
        """Send what needs sending.

        Args:
            pairs: id and pool of what is queued in the database.
            all_queued: whether that is everything. Then the rest is forgotten, and sent at once should it ever be
                queued again; else it is only what is new.
        """
        if all_queued:
            known = {id_ for id_, _ in pairs}
            self._sent = {id_: when for id_, when in self._sent.items() if id_ in known}
        due = [(id_, pool) for id_, pool in pairs if self._is_due(id_)]
        if not due:
            return
        try:
            empty = {pool for pool in {pool for _, pool in due} if self._length(pool) == 0}
            self._send((id_, pool) for id_, pool in due if id_ not in self._sent or pool in empty)
        except (RedisError, OperationalError, OSError) as error:
            self._ill(error)

    def depth(self, pool: str) -> int | None:
        """How many messages wait in a pool's queue; None if Redis does not say."""
        try:
            return self._length(pool)
        except (RedisError, OSError) as error:
            self._ill(error)
            return None

    def close(self) -> None:
        """Give the connections back."""
        self._redis.close()
        self._app.close()

    def _is_due(self, id_: int) -> bool:
        sent = self._sent.get(id_)
        return sent is None or self._clock() - sent >= self._again

    def _length(self, pool: str) -> int:
        length = int(self._redis.llen(queue_name(pool)))
        self.healthy = True
        return length

    def _send(self, pairs: Iterable[tuple[int, str]]) -> None:
        with self._app.producer_or_acquire() as producer:
            for id_, pool in pairs:
                if pool not in self._queues:
                    self._queues[pool] = queue(pool)
                self._app.send_task(TASK, (id_,), queue=self._queues[pool], producer=producer, ignore_result=True)
                self._sent[id_] = self._clock()

    def _ill(self, error: Exception) -> None:
        if self.healthy:
            _log.warning("Redis does not answer: %s", error, extra={"action": "redis.away"})
        self.healthy = False
