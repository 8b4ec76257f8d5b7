"""The experts' magnitudes as curves: an inline SVG on a logarithmic axis."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

from merging.diagnosis.summary import DARE_LIMIT, ExpertSummary

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 920, 260, 44, 34, 12
_COLOURS = 8  # that the page's style has
_LEAST = 1e-4  # a smaller share cannot be seen; the axis begins and ends where a curve rises above it
_MIDDLE = 2**0.25  # of a half octave, from its beginning


@dataclass(frozen=True)
class _Axes:
    """Where magnitudes from 10**low to 10**high and shares up to `top` are drawn."""

    low: float
    high: float
    top: float

    @classmethod
    def around(cls, points: Sequence[tuple[float, float]]) -> "_Axes":
        magnitudes = [*(edge for edge, _ in points), DARE_LIMIT]
        top = max(share for _, share in points) * 1.08
        return cls(math.log10(min(magnitudes)) - 0.2, math.log10(max(magnitudes)) + 0.4, top)

    def x(self, magnitude: float) -> float:
        return _LEFT + (math.log10(magnitude) - self.low) / (self.high - self.low) * (_WIDTH - _LEFT - 8)

    def y(self, share: float) -> float:
        return _TOP + (1 - share / self.top) * (_HEIGHT - _TOP - _BOTTOM)

    def holds(self, magnitude: float) -> bool:
        return self.low <= math.log10(magnitude) <= self.high


def magnitude_curves(experts: Sequence[ExpertSummary]) -> str:
    """The curves with their legend; empty if no expert differs from the base."""
    points = [point for expert in experts for point in expert.histogram if point[1] > _LEAST]
    if not points:
        return ""
    axes = _Axes.around(points)
    lines = "".join(_curve(axes, index, expert) for index, expert in enumerate(experts))
    label = "distribution of |τ| by expert"
    drawn = f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role=img aria-label="{label}">{"".join(_grid(axes))}{lines}</svg>'
    return f"{drawn}<p class=legend>{''.join(_legend(experts))}</p>"


def _grid(axes: _Axes) -> Iterator[str]:
    floor = axes.y(0)
    for power in range(math.ceil(axes.low), math.floor(axes.high) + 1):
        at = axes.x(10.0**power)
        yield f'<line class=grid x1="{at:.1f}" x2="{at:.1f}" y1="{_TOP}" y2="{floor:.1f}"/>'
        yield f'<text x="{at:.1f}" y="{_HEIGHT - 14}" text-anchor=middle>1e{power}</text>'
    for share in _ticks(axes.top):
        at = axes.y(share)
        yield f'<line class=grid x1="{_LEFT}" x2="{_WIDTH}" y1="{at:.1f}" y2="{at:.1f}"/>'
        yield f'<text x="{_LEFT - 6}" y="{at + 4:.1f}" text-anchor=end>{share:.0%}</text>'
    limit = axes.x(DARE_LIMIT)
    yield f'<line class=limit x1="{limit:.1f}" x2="{limit:.1f}" y1="{_TOP}" y2="{floor:.1f}"/>'
    yield f'<text x="{limit - 5:.1f}" y="{_TOP + 10}" text-anchor=end>{DARE_LIMIT}</text>'


def _ticks(top: float) -> Iterator[float]:
    """At most seven round shares from 0 on."""
    step = next((s for s in (0.01, 0.02, 0.05, 0.1, 0.2) if top / s <= 6), 0.5)
    for index in range(int(top / step) + 1):
        yield index * step


def _curve(axes: _Axes, index: int, expert: ExpertSummary) -> str:
    points = " ".join(
        f"{axes.x(edge * _MIDDLE):.1f},{axes.y(share):.1f}" for edge, share in expert.histogram if axes.holds(edge)
    )
    title = f"<title>{escape(expert.name)}</title>"
    return f'<polyline class="line c{index % _COLOURS}" points="{points}">{title}</polyline>'


def _legend(experts: Sequence[ExpertSummary]) -> Iterator[str]:
    for index, expert in enumerate(experts):
        yield f'<span><i class="b{index % _COLOURS}"></i>{escape(expert.name)}</span> '
