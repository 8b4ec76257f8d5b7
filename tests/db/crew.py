"""Several processes that do the same thing to one database at the same moment."""

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from multiprocessing.synchronize import Barrier
from typing import Any

from db.store import Store, connect_store

SIZE = 4
SECONDS = 60.0
_START: list[Barrier] = []  # of a process of the crew


class Crew:
    """Processes that live as long as the tests, for starting one takes longer than most of what they do."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(SIZE, context, initializer=_join, initargs=(context.Barrier(SIZE),))

    def race(self, store: Store, deed: Callable[..., Any], arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        """What `deed` returns for the store and each of the arguments, one a process, all let go at once."""
        return self.race_at(store.url, _with_store, [(deed, *each) for each in arguments])

    def race_at(self, url: str, deed: Callable[..., Any], arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        """As `race`, with the database's URL."""
        assert len(arguments) == SIZE, "everybody must come to the start"
        going = [self._pool.submit(_go, deed, url, *each) for each in arguments]
        return [each.result(SECONDS) for each in going]

    def close(self) -> None:
        """End the processes."""
        self._pool.shutdown()


def each_of(*arguments: Any) -> list[tuple[Any, ...]]:
    """The same arguments for everybody, after a number of his own."""
    return [(number, *arguments) for number in range(SIZE)]


def _join(start: Barrier) -> None:
    _START.append(start)


def _go(deed: Callable[..., Any], url: str, *arguments: Any) -> Any:
    _START[0].wait(SECONDS)
    return deed(url, *arguments)


def _with_store(url: str, deed: Callable[..., Any], *arguments: Any) -> Any:
    with closing(connect_store(url)) as store:
        return deed(store, *arguments)
