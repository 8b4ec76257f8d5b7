"""Points that differ in no digit that counts are one point."""

from collections.abc import Mapping

from merging.catalog import Scalar


def name_of(params: Mapping[str, Scalar], digits: int = 6) -> str:
    """The same for the same point, whatever the order of its parameters.

    Args:
        digits: of a number that count.
    """
    named = sorted(params.items())
    return "|".join(f"{k}={v:.{digits}g}" if isinstance(v, float) else f"{k}={v}" for k, v in named)
