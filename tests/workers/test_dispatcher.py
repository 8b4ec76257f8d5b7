"""What is sent, what is sent again, and what happens while there is no Redis."""

import json
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.services import Redis
from workers.dispatcher import CeleryDispatcher


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def dispatcher(own_redis: Redis, clock: Clock) -> Iterator[CeleryDispatcher]:
    made = CeleryDispatcher(own_redis.url, again_seconds=2.0, clock=clock)
    yield made
    made.close()


def waiting(redis: Redis, pool: str = "default") -> Counter[str]:
    """The ids in a pool's queue."""
    with redis.client() as client:
        messages = [json.loads(raw) for raw in client.lrange(f"mergesearch.{pool}", 0, -1)]
    return Counter(message["headers"]["argsrepr"] for message in messages)


def empty(redis: Redis) -> None:
    """Lose every message."""
    with redis.client() as client:
        client.flushall()


def test_each_id_is_sent_once_to_its_pool(dispatcher: CeleryDispatcher, own_redis: Redis, clock: Clock) -> None:
    for _ in range(3):
        dispatcher.publish([(1, "default"), (2, "default"), (3, "gpu80")])
        clock.now += 10
    assert waiting(own_redis) == Counter(["(1,)", "(2,)"]) and waiting(own_redis, "gpu80") == Counter(["(3,)"])
    assert dispatcher.depth("default") == 2 and dispatcher.depth("nobody") == 0


def test_lost_messages_are_sent_again_after_a_while(
    dispatcher: CeleryDispatcher, own_redis: Redis, clock: Clock
) -> None:
    dispatcher.publish([(1, "default"), (2, "default")])
    empty(own_redis)
    dispatcher.publish([(1, "default"), (2, "default")])
    assert waiting(own_redis) == Counter()
    clock.now += 2.0
    dispatcher.publish([(1, "default"), (2, "default")])
    assert waiting(own_redis) == Counter(["(1,)", "(2,)"])


def test_what_was_not_queued_for_a_while_is_sent_at_once(dispatcher: CeleryDispatcher, own_redis: Redis) -> None:
    dispatcher.publish([(1, "default"), (2, "default")])
    dispatcher.publish([(2, "default")])  # a worker has the first
    dispatcher.publish([(1, "default"), (2, "default")])  # and died of it
    assert waiting(own_redis) == Counter(["(1,)", "(2,)", "(1,)"])


def test_of_a_part_nothing_is_concluded(dispatcher: CeleryDispatcher, own_redis: Redis) -> None:
    dispatcher.publish([(1, "default")])
    dispatcher.publish([(2, "default")], all_queued=False)
    dispatcher.publish([(1, "default"), (2, "default")])
    assert waiting(own_redis) == Counter(["(1,)", "(2,)"])


def test_without_redis_nothing_is_raised_and_nobody_waits(
    dispatcher: CeleryDispatcher, own_redis: Redis, clock: Clock
) -> None:
    dispatcher.publish([(1, "default")])
    own_redis.kill()
    began = time.monotonic()
    dispatcher.publish([(1, "default"), *((i, "default") for i in range(2, 100))])
    assert time.monotonic() - began < 1.0
    assert not dispatcher.healthy and dispatcher.depth("default") is None
    own_redis.start()
    clock.now += 5
    dispatcher.publish([(1, "default"), (2, "default")])
    assert waiting(own_redis) == Counter(["(1,)", "(2,)"]) and dispatcher.healthy


def test_a_redis_that_does_not_answer_is_waited_for_shortly(own_redis: Redis) -> None:
    dispatcher = CeleryDispatcher(own_redis.url)
    dispatcher.publish([(1, "default")])
    os.kill(own_redis.pid, signal.SIGSTOP)
    began = time.monotonic()
    dispatcher.publish([(2, "default")])
    took = time.monotonic() - began
    os.kill(own_redis.pid, signal.SIGCONT)
    dispatcher.close()
    assert not dispatcher.healthy and took < 2
