"""The rungs of a study: how many documents a trial is scored on before it is decided whether it goes on."""

from collections.abc import Mapping, Sequence

from evaluation.rungs import rung_sizes, rung_totals
from search.searchspec import Prune

LEAST_FIRST = 40  # documents: fewer tell only very different candidates apart
HALVED_FIRST = 80  # where most trials end at the first rung, what is learned of them rests on it; with 40 it misled TPE
HALVED_SHARE = 13  # but no more than one in so many of all documents: all trials are scored on them
LEAST_OF_TASK = 4
FACTOR = 2.0
EXPLAINED = 160  # documents that show what the winner owes to what; without a race a rung that serves for this alone
WORTH_A_RACE = 3.0  # times the first rung: a study with fewer documents saves next to nothing by racing


def plan_rungs(policy: Prune, documents: int, tasks: int) -> tuple[int, ...]:
    """How many documents of all raced tasks together each rung has, ascending; the last has all.

    Args:
        documents: all search documents of those tasks.
        tasks: how many tasks are raced on.
    """
    first = max(LEAST_FIRST, LEAST_OF_TASK * tasks)
    if policy in ("halving", "history", "hyperband"):
        first = max(first, min(HALVED_FIRST, documents // HALVED_SHARE))
    if policy == "off":
        few = max(EXPLAINED, LEAST_OF_TASK * tasks)
        return (few, documents) if documents > FACTOR * few else (documents,)
    if documents < WORTH_A_RACE * first:
        return (documents,)
    return (first, documents) if policy == "one_shot" else rung_totals(documents, first, FACTOR)


def plan_sizes(counts: Mapping[str, int], raced: Sequence[str], totals: Sequence[int]) -> dict[str, tuple[int, ...]]:
    """How many documents of each task each rung has.

    Args:
        counts: search documents of every task.
        raced: the tasks that decide a race; the others are scored on the last rung only.
        totals: as `plan_rungs` gives them for the raced tasks.
    """
    sizes = rung_sizes({task: counts[task] for task in raced}, totals)
    below = (0,) * (len(totals) - 1)
    return {task: sizes.get(task, (*below, count)) for task, count in counts.items()}
