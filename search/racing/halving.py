"""Asynchronous successive halving over documents: at each rung only the best go on.

Li et al., "A System for Massively Parallel Hyperparameter Tuning" (arXiv:1810.05934), in the variant that decides as
soon as a trial has its score and never comes back to one that was stopped. The baselines count at every rung:
a trial that does not come near them there is not worth more documents.

One of four goes on. Simulated with 60 candidates on 888 documents, that cost 23 to 25 % of full scoring, one of three
29 to 32 %, one of two 44 to 48 %. Of candidates far apart all three found the best in each of 40 runs; of close ones
they lost 0.4, 0.2 and 0.04 points of a hundred. A real search costs more, 36 % on the zoo (docs/benchmarks.md):
its later trials are better than its earlier ones, and pass a bar that those have set.
"""

from collections.abc import Iterable

from search.racing.contract import Contender, Field, Promote, Stop

ETA = 4  # one of so many goes on


class Halving:
    """Promotes the best of each rung."""

    def entry(self, number: int) -> int:
        """The smallest rung."""
        return 0

    def decide(self, contender: Contender, field: Field) -> Promote | Stop:
        """Go on if it is among the best of all trials seen at this rung."""
        return among_best(contender, field.seen(contender.rung).values(), "halving")


def among_best(contender: Contender, seen: Iterable[float], policy: str) -> Promote | Stop:
    """Go on if the contender is among the best share of those seen and itself; the first of a rung always does.

    Args:
        seen: the others' values at the rung.
        policy: what the reason begins with.
    """
    others = list(seen)
    most = max(1, (len(others) + 1) // ETA)
    better = sum(value > contender.value for value in others)
    if better < most:
        return Promote(contender.rung + 1)
    documents = sum(len(s.documents) for s in contender.scores)
    return Stop(f"{policy}: number {better + 1} of {len(others) + 1} after {documents} documents; {most} go on")
