"""What packed tensors take, counted from the bytes of their payload; delta.json comes on top."""

from collections.abc import Iterable
from math import prod

from merging.codecs.contract import Packed


def payload_bytes(packed: Packed) -> int:
    """Bytes of one packed tensor."""
    return sum(part.nbytes for part in packed.payload.values())


def bits_per_parameter(packed: Iterable[Packed]) -> float:
    """Bits that an element takes, over all of these tensors; 0 of none."""
    counted = [(payload_bytes(each), prod(each.shape)) for each in packed]
    parameters = sum(size for _, size in counted)
    return 8 * sum(taken for taken, _ in counted) / parameters if parameters else 0.0
