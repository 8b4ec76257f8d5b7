"""A line on stderr that is drawn again and again on a terminal; elsewhere only what is said is printed."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime

from rich.console import Console
from rich.live import Live
from rich.text import Text

PHASES = {
    "rescoring": "scoring in full who could still win",
    "originals": "scoring the best with the experts as they are",
    "explaining": "scoring the winner with parts left out",
    "holdout": "scoring the finalists on the holdout",
    "judging": "comparing the finalists",
}


class LiveLine:
    """The line.

    Args:
        parts: what it says now, asked for whenever it is drawn.

    Attributes:
        drawn: whether it is on the screen, so that not everything needs to be said in lines of its own.
    """

    def __init__(self, console: Console, parts: Callable[[], Sequence[str]]) -> None:
        self._console, self._parts = console, parts
        self._live: Live | None = None

    @property
    def drawn(self) -> bool:
        """Whether the line is on the screen now."""
        return self._live is not None

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Draw the line until the block ends; without a terminal nothing is drawn."""
        if not self._console.is_terminal:
            yield
            return
        with Live(self._text(), console=self._console, refresh_per_second=4, transient=True) as live:
            self._live = live
            live.get_renderable = self._text  # type: ignore[method-assign]
            try:
                yield
            finally:
                self._live = None

    def refresh(self) -> None:
        """Draw it as it is now."""
        if self._live is not None:
            self._live.refresh()

    def say(self, line: str) -> None:
        """Print a line of its own, with the time."""
        self._console.print(f"{datetime.now():%H:%M:%S}  {line}", markup=False, highlight=False, soft_wrap=True)

    def _text(self) -> Text:
        return Text("  ·  ".join(self._parts()), style="cyan")
