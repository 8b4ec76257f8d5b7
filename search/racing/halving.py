"""Asynchronous successive halving over documents: at each rung only the best go on.

Li et al., "A System for Massively Parallel Hyperparameter Tuning" (arXiv:1810.05934), in the variant that decides as
soon as a trial has its score and never comes back to one that was stopped. The baselines came to every rung first:
a trial that does not come near them there is not worth more documents.

A trial is compared with the latest that came to the rung, not with all that ever did: a search gets better, and
nearly everybody passes a bar that its beginning has set. So one of six goes on however long it lasts.
"""

from collections.abc import Mapping

from search.racing.contract import Contender, Field, Promote, Stop

ETA = 6  # one of so many goes on
LATEST = 2 * ETA - 1  # that a trial is compared with: two of a dozen go on; of fewer, luck would pick the one


class Halving:
    """Promotes the best of each rung."""

    def entry(self, number: int) -> int:
        """The smallest rung."""
        return 0

    def decide(self, contender: Contender, field: Field) -> Promote | Stop:
        """Go on if it is among the best of those that came to this rung last."""
        return among_best(contender, field.seen(contender.rung), "halving")


def among_best(contender: Contender, seen: Mapping[int, float], policy: str) -> Promote | Stop:
    """Go on if the contender is among the best share of the latest and itself; the first of a rung always does.

    Args:
        seen: the others' values at the rung, by number.
        policy: what the reason begins with.
    """
    latest = [seen[number] for number in sorted(seen)[-LATEST:]]
    most = max(1, (len(latest) + 1) // ETA)
    better = sum(value > contender.value for value in latest)
    if better < most:
        return Promote(contender.rung + 1)
    documents = sum(len(s.documents) for s in contender.scores)
    place = f"number {better + 1} of the last {len(latest) + 1}"
    return Stop(f"{policy}: {place} after {documents} documents; {most} go on")
