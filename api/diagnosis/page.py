"""The diagnosis as one HTML file that needs nothing else: no script, no font, no picture from elsewhere."""

from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path

from api.diagnosis.curves import magnitude_curves
from api.diagnosis.heat import EMPTY, Cell, heat_map, signed
from api.diagnosis.layers import layers_section
from api.diagnosis.style import STYLE
from merging.diagnosis.opening import BASE, Facts
from merging.diagnosis.summary import PairSummary, Summary
from merging.diagnosis.warnings import Remark


def page(base: Path, facts: Mapping[str, Facts], summary: Summary, remarks: Sequence[Remark]) -> str:
    """The page.

    Args:
        base: the base's folder, as it was named.
        summary: with as many ranges of layers as the page is to show.
    """
    title = f"{base.resolve().name} and {len(summary.experts)} experts"
    sections = [_head(title, base, facts, summary, remarks), _remarks(remarks)]
    if summary.groups:
        sections += [_experts(summary), _magnitudes(summary), _pairs(summary), layers_section(summary)]
    return (
        "<!doctype html><html lang=en><head><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>{escape(title)}: diagnosis</title><style>{STYLE}</style></head>"
        f"<body>{''.join(sections)}</body></html>\n"
    )


def _head(title: str, base: Path, facts: Mapping[str, Facts], summary: Summary, remarks: Sequence[Remark]) -> str:
    own = facts.get(BASE)
    size = f", {own.parameters:,} parameters in {summary.layer_count} layers" if own else ""
    chips = ""
    for level, word in (("bad", "bad"), ("warning", "warning"), ("ok", "note")):
        count = sum(remark.level == level for remark in remarks)
        plural = "s" * (count > 1 and level != "bad")
        chips += f"<span class={level}>{count} {word}{plural}</span>" if count else ""
    return (
        f"<h1>{escape(title)}</h1><p class=note>Base <code>{escape(str(base))}</code>{size}; measured in "
        f"{summary.seconds:.1f} s. Nothing was merged or scored.</p><div class=chips>{chips}</div>"
    )


def _remarks(remarks: Sequence[Remark]) -> str:
    items = "".join(
        f"<li class={r.level}><span class='badge {r.level}'>{r.level}</span><span class=who>"
        f"{escape(', '.join(r.models))}</span><span>{escape(r.problem)}"
        + (f"<span class=remedy>{escape(r.remedy)}</span>" if r.remedy else "")
        + "</span></li>"
        for r in remarks
    )
    return f"<h2>Findings</h2><ul class=remarks>{items}</ul>"


def _experts(summary: Summary) -> str:
    titles = (
        "expert",
        "‖τ‖ / ‖θ‖",
        "cosine to base",
        "mean |τ|",
        "median",
        "99%",
        "largest",
        "unchanged",
        "frozen tensors",
    )
    head = "".join(f"<th>{title}</th>" for title in titles)
    rows = ""
    for e in summary.experts:
        sizes = (e.mean_magnitude, e.quantiles["median"], e.quantiles["99%"], e.quantiles["largest"])
        cells = [escape(e.name), f"{e.relative_norm:.4f}", f"{e.matrix_cosine:.4f}", *(f"{s:.2g}" for s in sizes)]
        cells += [f"{e.unchanged:.1%}", f"{len(e.frozen)} of {e.tensors}"]
        rows += "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"
    return (
        "<h2>Experts against the base</h2><p class=note>τ is what fine-tuning changed (expert − base), θ the base's "
        "weights. The cosine leaves vectors out: norm weights are alike in all models.</p>"
        f"<div class=scroll><table class=figures><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _magnitudes(summary: Summary) -> str:
    curves = magnitude_curves(summary.experts)
    note = (
        "Share of the elements by |τ|, in half octaves; elements that did not move are left out. Methods that drop "
        "elements at random (dare, della) are known to work to the left of the dashed line."
    )
    return (
        f"<h2>How far single weights moved</h2><p class=note>{note}</p><div class=panel>{curves}</div>"
        if curves
        else ""
    )


def _pairs(summary: Summary) -> str:
    if not summary.pairs:
        return ""
    panels = (
        ("Cosine of deltas", "0: unrelated tasks; near 1: much in common", lambda p: p.cosine, lambda p: p.cosine),
        (
            "Sign conflict, weighted",
            "share of |τ_i τ_j| pulling in opposite directions; 50%: no relation",
            lambda p: p.weighted_conflict,
            lambda p: 2 * p.weighted_conflict - 1,
        ),
        (
            "Overlap of the largest tenth",
            "share of one's largest among the other's; chance: 10%",
            lambda p: p.overlap,
            lambda p: p.overlap,
        ),
    )
    shown = "".join(
        f"<div class=panel><h3>{title}</h3>{_matrix(summary, value, heat, percent=index > 0)}"
        f"<p class=note>{note}</p></div>"
        for index, (title, note, value, heat) in enumerate(panels)
    )
    width = f"--least:{min(1000, max(300, 110 + 58 * len(summary.experts)))}px"
    return f"<h2>Experts against each other</h2><div class=panels style='{width}'>{shown}</div>"


def _matrix(
    summary: Summary, value: Callable[[PairSummary], float], heat: Callable[[PairSummary], float], *, percent: bool
) -> str:
    """A symmetric map of all pairs."""
    names = [expert.name for expert in summary.experts]
    found = {(p.first, p.second): p for p in summary.pairs}

    def cell(one: str, other: str) -> Cell:
        pair = found.get((one, other)) or found.get((other, one))
        if pair is None:
            return EMPTY
        text = f"{value(pair):.0%}" if percent else signed(value(pair))
        return Cell(heat(pair), text, f"{one} · {other}: {value(pair):.4f}")

    return heat_map(names, [(one, [cell(one, other) for other in names]) for one in names])
