"""How the controller reaches those who build and score, whoever they are.

A message is only a hint that an evaluation is waiting; the database says what is true. A dispatcher may lose
or repeat messages: that costs time, never a result.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from db.store import Store
from evaluation.result import Failed, Infeasible, Scored
from evaluation.wanted import Wanted
from merging.recipe import Recipe


class Dispatcher(Protocol):
    """Gets the evaluations of one study done, in processes of this run."""

    def announce(self, evaluation_ids: Sequence[int]) -> None:
        """These wait, as far as is known. Announcing one that is being done, or is done, does no harm."""
        ...

    def wait(self, seconds: float) -> None:
        """Return when something may have changed, or after that time."""
        ...


class Publish(Protocol):
    """Tells workers what waits for them. A hint: it may be lost, and may be given again and again."""

    def __call__(self, pairs: Sequence[tuple[int, str]], *, all_queued: bool) -> None:
        """(id, pool) of evaluations; `all_queued`: these are all that wait, else only what is new."""
        ...


class InlineDispatcher:
    """Does the evaluations in the calling process, one at each `wait`: for tests and tools, not for speed.

    Args:
        evaluate: scores a recipe on the documents that are wanted.
    """

    def __init__(self, store: Store, evaluate: Callable[[Recipe, Wanted], Scored | Infeasible | Failed]) -> None:
        self._store, self._evaluate = store, evaluate
        self._queue: deque[int] = deque()

    def announce(self, evaluation_ids: Sequence[int]) -> None:
        """Queue them."""
        self._queue.extend(evaluation_ids)

    def wait(self, seconds: float) -> None:
        """Do the oldest that is still to be had."""
        while self._queue:
            lease = self._store.evaluations.claim(self._queue.popleft(), "inline", seconds=3600.0)
            if lease is not None:
                wanted = self._store.evaluations.wanted(lease)
                self._store.evaluations.finish(lease, self._evaluate(lease.recipe, wanted))
                return
