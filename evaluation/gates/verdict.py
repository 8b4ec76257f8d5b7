"""Whether a candidate is broken, by a look at it and at its parents: the base and the experts, each alone.

Only what no good candidate is: a search learns from scores, and a gate that stops a good one costs more than many bad
ones do. So every threshold is relative to the worst parent.
"""

from collections.abc import Sequence

from evaluation.gates.look import Look

WORSE = 1.5  # times the worst parent's perplexity
REPEATED = 0.3  # the share of distinct pairs at and below which answers are one phrase over and over


def broken(look: Look, parents: Sequence[Look]) -> str | None:
    """Why the candidate should not be scored; None: nothing is wrong with it."""
    worst = max(parent.perplexity for parent in parents)
    if look.perplexity > WORSE * worst:
        return (
            f"its perplexity on the search texts is {look.perplexity:.4g}, more than {WORSE} times that of the worst "
            f"of base and experts ({worst:.4g})"
        )
    if _repeats(look) and not any(map(_repeats, parents)):
        return (
            f"its answers repeat themselves: {look.distinct:.0%} of their pairs of tokens are distinct, at most "
            f"{REPEATED:.0%}, and those of base and experts do not"
        )
    if look.answers and not look.ended and all(parent.ended for parent in parents):
        return f"none of its {look.answers} answers came to an end, and some of the base's and of every expert's do"
    return None


def _repeats(look: Look) -> bool:
    return look.distinct is not None and look.distinct <= REPEATED
