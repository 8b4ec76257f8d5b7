"""Tables of the comparison of searches, in markdown: one a zoo, ours first, then the rivals, the best first."""

import statistics
from collections.abc import Mapping, Sequence

from benchmarks.racing_lab import interval
from benchmarks.search_run import SHARES, Line

SHOWN = (0.1, 0.2, 0.4, 1.0)
"""Shares of the budget with a column of their own."""
LEAST_SEEDS = 3  # of fewer no interval is worth printing
Runs = Mapping[str, Sequence[Line]]
"""The lines of each search, one a seed."""


def tables(lines: Sequence[Line]) -> str:
    """All tables; nothing where there are no lines."""
    zoos = list(dict.fromkeys(line.zoo for line in lines))
    return "\n\n".join(_table(zoo, [line for line in lines if line.zoo == zoo]) for zoo in zoos)


def by_search(lines: Sequence[Line]) -> dict[str, list[Line]]:
    """The lines of one zoo by search, seeds ascending: ours, then the rivals, each by what they find in the end."""
    found: dict[str, list[Line]] = {}
    for line in sorted(lines, key=lambda line: line.seed):
        found.setdefault(line.search, []).append(line)
    order = sorted(found, key=lambda name: (found[name][0].rival, -(final(found[name]) or 0.0), name))
    return {name: found[name] for name in order}


def mean_at(lines: Sequence[Line], share: float) -> float | None:
    """The mean holdout score of what is recommended at a share of the budget; None where some have nothing yet."""
    scores = [point.holdout for line in lines for point in line.curve if point.share == share]
    known = [score for score in scores if score is not None]
    return statistics.fmean(known) if known and len(known) == len(scores) else None


def final(lines: Sequence[Line]) -> float | None:
    """The mean at the whole budget."""
    return mean_at(lines, SHARES[-1])


def best_rival(runs: Runs) -> str | None:
    """The rival that ends with the best holdout score, of those with the most seeds."""
    known = [name for name, lines in runs.items() if lines[0].rival and final(lines) is not None]
    most = max((len(runs[name]) for name in known), default=0)
    rivals = [name for name in known if len(runs[name]) == most]
    return max(rivals, key=lambda name: final(runs[name]) or 0.0, default=None)


def ahead(runs: Runs, lines: Sequence[Line], share: float) -> tuple[int, int]:
    """In how many seeds what is recommended at a share of the budget is better on the holdout than what any rival with
    that seed recommends in the end; and of how many seeds that is known.
    """
    bars: dict[tuple[str, int], float] = {}
    for rival in (line for name in runs for line in runs[name] if line.rival):
        bars[rival.models, rival.seed] = max(bars.get((rival.models, rival.seed), 0.0), rival.curve[-1].holdout or 0.0)
    found = [
        (point.holdout or 0.0) > bars[line.models, line.seed]
        for line in lines
        for point in line.curve
        if point.share == share and (line.models, line.seed) in bars
    ]
    return sum(found), len(found)


def share_to_reach(lines: Sequence[Line], score: float) -> float | None:
    """The share of the budget at which the mean curve first reaches a score, on the line between two checkpoints."""
    before, low = 0.0, None
    for share in SHARES:
        value = mean_at(lines, share)
        if value is not None and value >= score:
            if low is None or value == low:
                return share
            return before + (share - before) * (score - low) / (value - low)
        before, low = share, value
    return None


def _table(zoo: str, lines: Sequence[Line]) -> str:
    runs = by_search(lines)
    bar = best_rival(runs)
    terms = lines[0].terms
    documents = statistics.fmean(line.documents for line in lines)
    held = statistics.fmean(line.held for line in lines)
    title = (
        f"Zoo `{zoo}`: a budget of {terms.evaluations} full evaluations, each about {documents:.0f} search documents "
        f"(about {held:.0f} held out)"
    )
    columns = [f"holdout at {share:.0%}" for share in SHOWN]
    header = [
        "search",
        "seeds",
        *columns,
        "minus best rival",
        "ahead of all rivals at 20%, in the end",
        "search score",
        "budget to reach it",
        "measuring",
        "spent",
        "CPU s",
    ]
    rows = [_row(name, runs, runs[bar] if bar else []) for name in runs]
    return "\n".join([title, "", *map(_line, [header, ["---"] * len(header), *rows])])


def _row(name: str, runs: Runs, bar: Sequence[Line]) -> list[str]:
    lines = runs[name]
    budget = [line.terms.evaluations * line.documents for line in lines]
    last = [line.curve[-1].search for line in lines if line.curve[-1].search is not None]
    reached = share_to_reach(lines, final(bar) or 0.0) if bar and final(bar) is not None else None
    return [
        f"`{name}`" if lines[0].rival else f"**`{name}`**",
        str(len(lines)),
        *(_spread([p.holdout for line in lines for p in line.curve if p.share == share]) for share in SHOWN),
        _minus(lines, bar),
        "–" if lines[0].rival else ", ".join("{} of {}".format(*ahead(runs, lines, share)) for share in (0.2, 1.0)),
        f"{statistics.fmean(last):.3f}" if last else "–",
        "–" if reached is None else f"{reached:.0%} (1/{1 / reached:.1f})",
        f"{statistics.fmean(line.measured / all_ for line, all_ in zip(lines, budget, strict=True)):.0%}",
        f"{statistics.fmean(line.spent / all_ for line, all_ in zip(lines, budget, strict=True)):.0%}",
        f"{statistics.median(line.seconds for line in lines):.0f}",
    ]


def _minus(lines: Sequence[Line], bar: Sequence[Line]) -> str:
    """The difference to the best rival at the whole budget, paired by seed."""
    theirs = {(line.models, line.seed): line.curve[-1].holdout for line in bar}
    pairs = [(line.curve[-1].holdout, theirs.get((line.models, line.seed))) for line in lines]
    found = [own - other for own, other in pairs if own is not None and other is not None]
    return "–" if not found or lines == bar else _numbers(found, "{:+.3f}")


def _spread(values: Sequence[float | None]) -> str:
    """Mean and 95 % interval; of a search that has nothing yet with some seed, a dash."""
    known = [value for value in values if value is not None]
    return _numbers(known, "{:.3f}") if known and len(known) == len(values) else "–"


def _numbers(values: Sequence[float], form: str) -> str:
    mean, low, high = (form.format(number) for number in interval(values))
    return f"{mean} ({low} – {high})" if len(values) >= LEAST_SEEDS else mean


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
