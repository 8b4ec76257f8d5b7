"""How many documents each rung has: a nested share of every task's documents, the last rung being all of them.

A rung is a prefix of each task's documents in scoring order (`Suite.order`), so a larger rung holds the smaller ones
and a trial that goes on has only the rest to do. Every task has its share at every rung. No torch here.
"""

from collections.abc import Mapping, Sequence
from fractions import Fraction

LEAST = 4
"""Documents that each task has at each rung, if it has so many: fewer say nothing of a task."""


def rung_totals(documents: int, first: int, factor: float) -> tuple[int, ...]:
    """How many documents of all tasks together each rung has, ascending; the last rung has all.

    A rung that would leave less than half a step to the last is left out: it would cost nearly as much as the last
    and decide little.

    Args:
        documents: of all tasks together.
        first: of the smallest rung.
        factor: of a rung to the one before.

    Raises:
        ValueError: a count is below 1, or the factor not above 1.
    """
    if documents < 1 or first < 1 or not factor > 1:
        raise ValueError(f"no rungs from {first} to {documents} documents by a factor of {factor}")
    totals, share = [], float(first)
    while share * factor**0.5 <= documents:
        totals.append(round(share))
        share *= factor
    return (*dict.fromkeys(total for total in totals if total < documents), documents)


def rung_sizes(counts: Mapping[str, int], totals: Sequence[int]) -> dict[str, tuple[int, ...]]:
    """How many documents of each task each rung has: in proportion to its documents, and at least `LEAST`.

    Sizes never fall from rung to rung; the last is the task's count. Where a task takes its least, a rung has more
    than its total.

    Args:
        counts: documents of each task.
        totals: documents of all tasks together of each rung, ascending, as `rung_totals` gives them.

    Raises:
        ValueError: the last total is not the sum of the counts, or the totals do not ascend.
    """
    if not totals or totals[-1] != sum(counts.values()) or list(totals) != sorted(totals):
        raise ValueError(f"rungs of {list(totals)} documents do not end with all {sum(counts.values())}")
    rungs = [_shares(counts, total) for total in totals]
    return {
        task: tuple(max(min(count, LEAST), *(rung[task] for rung in rungs[: i + 1])) for i in range(len(rungs)))
        for task, count in counts.items()
    }


def _shares(counts: Mapping[str, int], total: int) -> dict[str, int]:
    """That many documents dealt out in proportion: the largest remainders take what rounding down leaves."""
    everything = sum(counts.values())
    exact = {task: Fraction(count * total, everything) for task, count in counts.items()}
    dealt = {task: int(share) for task, share in exact.items()}
    left = total - sum(dealt.values())
    for task in sorted(counts, key=lambda task: (dealt[task] - exact[task], task))[:left]:
        dealt[task] += 1
    return dealt
