"""How far a scoring is, as documents, from what is known of it while it runs: requests answered, documents done."""

import time
from collections.abc import Callable

Progress = Callable[[int, int], None]
"""Called with the documents done and their total; it may raise to end the scoring."""

PROGRESS_SECONDS = 0.25


class Meter:
    """Tells how many documents are done, a few times a second.

    Args:
        done, documents: documents known before the scoring begins, and all of them.
        tell: told both; None: nobody is.

    Attributes:
        stopped: what `tell` raised, if it did: no fault of whatever ran at that moment.
    """

    def __init__(self, done: int, documents: int, tell: Progress | None) -> None:
        self._done, self._total, self._tell = done, documents, tell
        self._stage = self._units = self._of_units = 0
        self._told = time.monotonic()
        self.stopped: BaseException | None = None

    def begin(self, documents: int, units: int) -> None:
        """The next documents are scored, in so many units of work."""
        self._done += self._stage
        self._stage, self._units, self._of_units = documents, 0, max(units, 1)

    def beat(self, units: int | None = None) -> None:
        """So many units of this stage are done (None: as many as before); raises what `tell` raises."""
        self._units = self._units if units is None else min(units, self._of_units)
        if self._tell is None or time.monotonic() - self._told < PROGRESS_SECONDS:
            return
        self._told = time.monotonic()
        self._say(self._done + self._stage * self._units // self._of_units)

    def finish(self) -> None:
        """All documents are done."""
        self._say(self._total)

    def _say(self, done: int) -> None:
        if self._tell is None:
            return
        try:
            self._tell(done, self._total)
        except BaseException as error:
            self.stopped = error
            raise
