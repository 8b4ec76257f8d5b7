"""The diagnosis as tables for a terminal."""

from collections.abc import Iterator, Sequence

from rich.table import Table
from rich.text import Text

from merging.diagnosis.summary import GroupSummary, PairSummary, Summary

_MOST_PAIRS = 45  # of ten experts


def tables(summary: Summary) -> Iterator[Table]:
    """The experts, their pairs, and the groups of layers; nothing where nothing could be compared."""
    if summary.groups:
        yield _experts(summary)
        if summary.pairs:
            yield _pairs(summary)
        yield _groups(summary)


def _experts(summary: Summary) -> Table:
    caption = "τ = expert − base, θ = base; frozen: tensors exactly as in the base"
    names = ("‖τ‖/‖θ‖", "cosine to base", "mean |τ|", "median", "99%", "largest", "unchanged", "frozen")
    table = _table("Experts against the base", caption, ("expert",), names)
    for expert in summary.experts:
        numbers = (expert.mean_magnitude, *(expert.quantiles[name] for name in ("median", "99%", "largest")))
        table.add_row(
            Text(expert.name),
            f"{expert.relative_norm:.4f}",
            f"{expert.matrix_cosine:.4f}",
            *(f"{number:.2g}" for number in numbers),
            f"{expert.unchanged:.1%}",
            f"{len(expert.frozen)}/{expert.tensors}",
        )
    return table


def _pairs(summary: Summary) -> Table:
    more = len(summary.pairs) - _MOST_PAIRS
    caption = (
        "cosines of deltas; conflict: share of what both move that they move in opposite directions, and the same "
        "weighted by |τ_i τ_j|; overlap of each tensor's largest tenth, and what chance would give"
    ) + (f"; the {_MOST_PAIRS} furthest from 0 of {len(summary.pairs)}" if more > 0 else "")
    names = ("cosine", *summary.modules, "conflict", "weighted", "overlap", "chance")
    table = _table("Experts against each other", caption, ("pair",), names)
    modules = [{(p.first, p.second): p.cosine for p in pairs} for pairs in summary.modules.values()]
    for pair in _furthest(summary.pairs):
        table.add_row(
            Text(f"{pair.first} · {pair.second}"),
            f"{pair.cosine:+.3f}",
            *(f"{cosines[pair.first, pair.second]:+.3f}" for cosines in modules),
            *(f"{share:.1%}" for share in (pair.conflict, pair.weighted_conflict, pair.overlap, pair.chance_overlap)),
        )
    return table


def _furthest(pairs: Sequence[PairSummary]) -> list[PairSummary]:
    """The pairs to show, in their order."""
    shown = sorted(pairs, key=lambda pair: -abs(pair.cosine))[:_MOST_PAIRS]
    return [pair for pair in pairs if pair in shown]


def _groups(summary: Summary) -> Table:
    caption = "‖τ‖/‖θ‖ there, and in brackets the part of the expert's whole ‖τ‖² that lies there"
    experts = [expert.name for expert in summary.experts]
    table = _table("Where the experts differ from the base", caption, ("layers", "module"), (*experts, "mean cosine"))
    for group in summary.groups:
        cells = (f"{group.relative_norms[e]:.4f} ({group.norm_shares[e]:.0%})" for e in experts)
        table.add_row(group.layers, group.module, *cells, mean_cosine(group))
    return table


def mean_cosine(group: GroupSummary) -> str:
    """The mean over a group's pairs; empty without pairs."""
    return f"{sum(pair.cosine for pair in group.pairs) / len(group.pairs):+.3f}" if group.pairs else ""


def _table(title: str, caption: str, left: Sequence[str], right: Sequence[str]) -> Table:
    table = Table(title=title, caption=caption)
    for name in left:
        table.add_column(name)
    for name in right:
        table.add_column(Text(name), justify="right")
    return table
