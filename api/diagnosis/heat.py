"""Heat maps as HTML tables: colours come from the page's style, so they follow its light and dark forms."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_DENSE = 16  # columns, from which on cells show their number only when pointed at
_STRONG = 55  # percent of colour from which on numbers are written in the page's own background colour


@dataclass(frozen=True)
class Cell:
    """One number.

    Attributes:
        heat: -1 to 1, how much of the cold or warm colour; None leaves the cell empty.
        text: the number as it is written.
        hint: what is said when it is pointed at.
    """

    heat: float | None
    text: str
    hint: str


def signed(value: float) -> str:
    """A cosine as it is written, without a sign where that says nothing."""
    return f"{value:+.2f}" if abs(value) >= 0.005 else "0.00"


EMPTY = Cell(None, "", "")


def heat_map(columns: Sequence[str], rows: Sequence[tuple[str, Sequence[Cell]]]) -> str:
    """The map.

    Args:
        columns: their titles.
        rows: title and cells, as many as there are columns.
    """
    dense = len(columns) > _DENSE
    head = "".join(f"<th scope=col><span>{escape(name)}</span></th>" for name in columns)
    body = "".join(
        f"<tr><th scope=row>{escape(title)}</th>{''.join(_cell(cell, dense) for cell in cells)}</tr>"
        for title, cells in rows
    )
    kind = "heat dense" if dense else "heat"
    table = f"<table class='{kind}'><thead><tr><td></td>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f"<div class=scroll>{table}</div>"


def _cell(cell: Cell, dense: bool) -> str:
    if cell.heat is None:
        return "<td class=none></td>"
    percent = round(min(1.0, abs(cell.heat)) * 100)
    colour = "var(--cold)" if cell.heat < 0 else "var(--warm)"
    ink = ";color:var(--page)" if percent >= _STRONG else ""
    text = "" if dense else escape(cell.text)
    style = f"background:color-mix(in oklab,{colour} {percent}%,var(--mid)){ink}"
    return f'<td style="{style}" title="{escape(cell.hint)}">{text}</td>'
