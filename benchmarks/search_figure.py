"""The comparison of searches as one SVG: a panel a zoo, holdout score against the budget that was spent."""

from collections.abc import Sequence
from html import escape

from benchmarks.search_report import Runs, by_search, mean_at
from benchmarks.search_run import SHARES, Line

WIDTH, HEIGHT, LEFT, TOP, GAP = 420, 300, 52, 34, 62
LEGEND_LINE = 15
OURS = ("#0b6e4f", "#08a045", "#1d7874", "#2f5d8a", "#6a4c93", "#9c528b", "#b56576", "#e07a5f")
THEIRS = ("#555555", "#8a8a8a", "#b0b0b0", "#c98a2b", "#d9ad62", "#7d6b57", "#a3907a", "#6b7a8f")
DASHES = ("6 3", "2 3", "8 3 2 3", "1 2")


def draw(lines: Sequence[Line]) -> str:
    """The figure as text; ours are drawn through, the rivals dashed."""
    zoos = list(dict.fromkeys(line.zoo for line in lines))
    panels = [by_search([line for line in lines if line.zoo == zoo]) for zoo in zoos]
    names = list(dict.fromkeys(name for runs in panels for name in runs))
    rival = {name: runs[name][0].rival for runs in panels for name in runs}
    style = _styles([name for name in names if not rival[name]], [name for name in names if rival[name]])
    width = max(1, len(zoos)) * (WIDTH + GAP) + LEFT
    height = TOP + HEIGHT + GAP + LEGEND_LINE * (len(names) + 1)
    parts = [_panel(zoo, runs, i, style) for i, (zoo, runs) in enumerate(zip(zoos, panels, strict=True))]
    legend = [_legend(name, TOP + HEIGHT + GAP + LEGEND_LINE * i, style[name]) for i, name in enumerate(names)]
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif">'
    ground = f'<rect width="{width}" height="{height}" fill="#ffffff"/>'
    return "\n".join([head, ground, *parts, *legend, "</svg>"]) + "\n"


def _styles(own: Sequence[str], others: Sequence[str]) -> dict[str, str]:
    """What each search's line looks like."""
    plain = {name: f'stroke="{OURS[i % len(OURS)]}" stroke-width="2"' for i, name in enumerate(own)}
    dashed = {}
    for i, name in enumerate(others):
        dash = DASHES[i // len(THEIRS) % len(DASHES)]
        dashed[name] = f'stroke="{THEIRS[i % len(THEIRS)]}" stroke-width="1.5" stroke-dasharray="{dash}"'
    return plain | dashed


def _panel(zoo: str, runs: Runs, index: int, style: dict[str, str]) -> str:
    curves = {name: [(share, mean_at(lines, share)) for share in SHARES] for name, lines in runs.items()}
    known = [value for curve in curves.values() for _, value in curve if value is not None]
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    room = 0.05 * (high - low or 1.0)
    low, high = low - room, high + room
    left = LEFT + index * (WIDTH + GAP)

    def at(share: float, value: float) -> str:
        return f"{left + share * WIDTH:.1f},{TOP + (high - value) / (high - low) * HEIGHT:.1f}"

    evaluations = next(iter(runs.values()))[0].terms.evaluations
    parts = [
        f'<text x="{left}" y="{TOP - 12}" font-size="13" font-weight="bold">{escape(zoo)}: holdout score</text>',
        f'<rect x="{left}" y="{TOP}" width="{WIDTH}" height="{HEIGHT}" fill="none" stroke="#999999"/>',
        f'<text x="{left + WIDTH / 2}" y="{TOP + HEIGHT + 34}" font-size="11" text-anchor="middle">'
        "documents looked at, in full evaluations</text>",
    ]
    for i in range(5):
        value, share = low + (high - low) * i / 4, i / 4
        x, y = left + share * WIDTH, TOP + HEIGHT - HEIGHT * i / 4
        parts.append(f'<line x1="{left}" x2="{left + WIDTH}" y1="{y}" y2="{y}" stroke="#eeeeee"/>')
        parts.append(f'<text x="{left - 5}" y="{y + 4}" font-size="10" text-anchor="end">{value:.2f}</text>')
        parts.append(
            f'<text x="{x}" y="{TOP + HEIGHT + 15}" font-size="10" text-anchor="middle">{evaluations * share:g}</text>'
        )
    for name, curve in curves.items():
        points = " ".join(at(share, value) for share, value in curve if value is not None)
        parts.append(f'<polyline points="{points}" fill="none" {style[name]}><title>{escape(name)}</title></polyline>')
    return "\n".join(parts)


def _legend(name: str, y: float, style: str) -> str:
    return (
        f'<line x1="{LEFT}" x2="{LEFT + 34}" y1="{y}" y2="{y}" {style}/>'
        f'<text x="{LEFT + 42}" y="{y + 4}" font-size="11">{escape(name)}</text>'
    )
