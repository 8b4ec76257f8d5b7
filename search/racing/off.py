"""No race: every trial is scored on all documents."""

from search.racing.contract import Contender, Field, Promote, Stop


class Off:
    """Scores everybody in full."""

    def __init__(self, rungs: int) -> None:
        self._last = rungs - 1

    def entry(self, number: int) -> int:
        """All documents at once."""
        return self._last

    def decide(self, contender: Contender, field: Field) -> Promote | Stop:
        """Go on to the end."""
        return Promote(self._last)
