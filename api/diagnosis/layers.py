"""The part of the page that goes through the layers: where the experts changed, and where they agree."""

import math
from collections.abc import Callable, Iterator

from api.diagnosis.heat import EMPTY, Cell, heat_map, signed
from merging.diagnosis.summary import MODULES, GroupSummary, Summary
from merging.layers import Module

_MOST_PAIRS = 10  # whose cosines are shown one by one; of more, the mean is
_Row = tuple[str, list[Cell]]


def layers_section(summary: Summary) -> str:
    """Both maps, one column a range of layers and one row an expert's or a pair's module."""
    columns = _columns(summary)
    most = max((norm for group in summary.groups for norm in group.relative_norms.values()), default=0.0)
    changed = (
        "<h2>Where the experts changed</h2><p class=note>‖τ‖ / ‖θ‖ by layer and module, up to "
        f"{most:.3f}; point at a cell for its number and for the part of the expert's whole ‖τ‖² that lies there.</p>"
        f"<div class=panel>{heat_map(columns, list(_norms(summary, most or 1.0)))}</div>"
    )
    agreeing = list(_cosines(summary))
    if not agreeing:
        return changed
    return (
        f"{changed}<h2>Where they agree</h2><p class=note>Cosine of two experts' deltas by layer and module.</p>"
        f"<div class=panel>{heat_map(columns, agreeing)}</div>"
    )


def _columns(summary: Summary) -> list[str]:
    return list(dict.fromkeys(group.layers for group in summary.groups))


def _rows(summary: Summary, title: str, cell: Callable[[GroupSummary], Cell]) -> Iterator[_Row]:
    """One row a module that the model has."""
    found: dict[tuple[str, Module], GroupSummary] = {(g.layers, g.module): g for g in summary.groups}
    for module in MODULES:
        groups = [found.get((layers, module)) for layers in _columns(summary)]
        if any(groups):
            yield f"{title} {module}", [EMPTY if group is None else cell(group) for group in groups]


def _norms(summary: Summary, most: float) -> Iterator[_Row]:
    """Relative norms; colours go with their root, so that one far expert does not hide the others."""
    for expert in summary.experts:

        def cell(group: GroupSummary, name: str = expert.name) -> Cell:
            own, share = group.relative_norms[name], group.norm_shares[name]
            where = f"{name}, {group.module}, {_where(group)}"
            return Cell(math.sqrt(own / most), f"{own:.3f}", f"{where}: {own:.4f}, {share:.1%} of the expert's ‖τ‖²")

        yield from _rows(summary, expert.name, cell)


def _cosines(summary: Summary) -> Iterator[_Row]:
    """Cosines of every pair, or the mean of many."""
    if len(summary.pairs) > _MOST_PAIRS:
        yield from _rows(summary, "all pairs,", lambda group: _cosine(_mean(group), "mean of all pairs", group))
        return
    for index, pair in enumerate(summary.pairs):

        def cell(group: GroupSummary, index: int = index) -> Cell:
            own = group.pairs[index]
            return _cosine(own.cosine, f"{own.first} · {own.second}", group)

        yield from _rows(summary, f"{pair.first} · {pair.second}", cell)


def _mean(group: GroupSummary) -> float:
    return sum(pair.cosine for pair in group.pairs) / len(group.pairs)


def _cosine(cosine: float, title: str, group: GroupSummary) -> Cell:
    return Cell(cosine, signed(cosine), f"{title}, {group.module}, {_where(group)}: {cosine:+.4f}")


def _where(group: GroupSummary) -> str:
    return f"{group.layers} the layers" if group.layers in ("before", "after") else f"layers {group.layers}"
