"""What was decided for a study when it was checked, in words: how its experts are kept, and what `auto` searches."""

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


def plan_lines(plan: Mapping[str, Any]) -> tuple[str, ...]:
    """What `auto` searches, and why.

    Args:
        plan: as a study's setup has it.
    """
    ranges = f"{plan['layers']} range{'s' if plan['layers'] > 1 else ''} of layers"
    return f"auto searches {', '.join(plan['methods'])} over {ranges}", *(f"  {why}" for why in plan["why"])


def setup_lines(setup: Mapping[str, Any]) -> tuple[str, ...]:
    """All that is to be said of a study's setup, or of what a service shows of it."""
    kept, plan = setup.get("compressed"), setup.get("plan")  # an earlier version says neither
    return *((kept_line(kept),) if kept else ()), *(plan_lines(plan) if plan else ())
