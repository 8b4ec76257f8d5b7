"""How a study keeps its experts, in words."""

from collections.abc import Mapping
from typing import Any

from rich.filesize import decimal


def kept_line(packed: Mapping[str, Any]) -> str:
    """That they are compressed, and how far.

    Args:
        packed: as a study's setup has it under `compressed`.
    """
    sizes = f"{decimal(packed['bytes'])} instead of {decimal(packed['whole_bytes'])}"
    bits = f"{packed['bits_per_parameter']:.3g} bits a parameter"
    return f"experts are kept compressed by {packed['by']['codec']}: {bits}, with the base {sizes}"
