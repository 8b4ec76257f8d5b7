"""Recipes and durations in a few words, for people."""

from collections import Counter

from merging.recipe import Recipe


def describe(recipe: Recipe) -> str:
    """The recipe in one line: methods with how many groups use them, and each expert's mean weight."""
    methods = Counter(group.method for group in recipe.groups)
    named = ", ".join(name if len(methods) == 1 else f"{name}×{count}" for name, count in methods.items())
    weights = []
    for expert in recipe.experts:
        given = [group.weights[expert] for group in recipe.groups if expert in group.weights]
        if given:
            weights.append(f"{expert} {sum(given) / len(given):.2f}")
    where = "" if len(recipe.groups) == 1 else f" over {len(recipe.groups)} groups"
    return f"{named} ({', '.join(weights)}{where})" if weights else f"{named}{where}"


def counted(ended: int, asked: int | None, share: float | None) -> str:
    """How far a search is: `12/60`, or `12 (34% of the budget)`.

    Args:
        ended: trials that are over.
        asked: how many there are to be; None: as many as the budget allows.
        share: how much of the nearest limit is used up; None: that is not known.
    """
    trials = f"{ended}" if asked is None else f"{ended}/{asked}"
    if share is None or (asked is not None and share <= ended / asked):
        return trials
    return f"{trials} ({share:.0%} of the budget)"


def duration(seconds: float) -> str:
    """`42s`, `3m 05s`, `2h 10m`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02d}s"
    return f"{whole // 3600}h {whole % 3600 // 60:02d}m"
