"""config.json as it is written beside weights: what it says of tied heads, and its bytes."""

import json
from collections.abc import Mapping
from typing import Any

from merging.checkpoint import Checkpoint, tie_flag


def tied(config: dict[str, Any], base: Checkpoint) -> dict[str, Any]:
    """The configuration, saying that the head is tied where it is left out and nothing else says so."""
    if base.ties_head and tie_flag(config) is None:
        config["tie_word_embeddings"] = True
    return config


def as_bytes(config: Mapping[str, Any]) -> bytes:
    """The file."""
    return json.dumps(config, indent=2).encode() + b"\n"
