"""For how long a study was searched, over all the runs that did so."""

import time
from collections.abc import Callable

SAVED_EVERY = 5.0  # seconds: what a run that is killed may lose of its count


class SearchClock:
    """Counts while the search goes on; a pause, and time in which nobody leads the study, are not counted.

    Args:
        before: seconds that are written down already.
        write: writes down so many more.
        now: seconds that only grow.
    """

    def __init__(
        self, before: float, write: Callable[[float], None], now: Callable[[], float] = time.monotonic
    ) -> None:
        self._written, self._write, self._now = before, write, now
        self._since: float | None = None  # what follows is not added yet
        self._unwritten = 0.0

    @property
    def seconds(self) -> float:
        """How long it was searched until now."""
        going = 0.0 if self._since is None else self._now() - self._since
        return self._written + self._unwritten + going

    def tick(self, *, going: bool) -> None:
        """Add what went by since the last tick, if the search went on then.

        Args:
            going: whether it does so from now on; False writes everything down.
        """
        now = self._now()
        if self._since is not None:
            self._unwritten += now - self._since
        self._since = now if going else None
        if self._unwritten >= SAVED_EVERY or (self._unwritten and not going):
            self._write(self._unwritten)
            self._written, self._unwritten = self._written + self._unwritten, 0.0
