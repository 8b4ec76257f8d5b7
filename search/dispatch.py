"""How the controller reaches those who build and score, whoever they are.

A message is only a hint that an evaluation is waiting; the database says what is true. A dispatcher may lose
or repeat messages: that costs time, never a result.
"""

from collections.abc import Sequence
from typing import Protocol


class Dispatcher(Protocol):
    """Gets evaluations done, somewhere."""

    def announce(self, evaluation_ids: Sequence[int]) -> None:
        """These are queued. Announcing one again, or one that is done, does no harm."""
        ...

    def wait(self, seconds: float) -> None:
        """Return when something may have changed, or after that time."""
        ...
