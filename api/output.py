"""Where output goes: tables for people, JSON for programs."""

import json
from typing import Any

from rich.console import Console

PLAIN_WIDTH = 150  # of tables that are written to a file or a pipe


def screen() -> Console:
    """Standard output, for tables; wide where it is no terminal, so that nothing is cut."""
    console = Console()
    return console if console.is_terminal else Console(width=PLAIN_WIDTH)


def print_json(content: Any) -> None:
    """One JSON document on stdout. Infinities (open bounds) become null."""
    print(json.dumps(_finite(content), indent=2))


def _finite(content: Any) -> Any:
    if isinstance(content, float) and content in (float("inf"), float("-inf")):
        return None
    if isinstance(content, dict):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    return content
