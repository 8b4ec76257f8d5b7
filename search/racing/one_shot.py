"""The one-shot baseline: everybody on the smallest rung, and then only the best few on all documents.

The few are picked when all trials are told (`search/rescoring.py`).
"""

from search.racing.contract import Contender, Field, Promote, Stop


class OneShot:
    """Stops everybody at the first rung."""

    def entry(self, number: int) -> int:
        """The smallest rung."""
        return 0

    def decide(self, contender: Contender, field: Field) -> Promote | Stop:
        """Stop, whoever it is."""
        return Stop("one_shot: everybody is scored on the first rung, the best are scored in full at the end")
