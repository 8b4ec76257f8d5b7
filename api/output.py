"""Machine-readable output."""

import json
from typing import Any


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
