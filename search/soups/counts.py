"""A soup as counts: how often each expert of the study is in it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import gcd

Counts = tuple[int, ...]
"""One number for each expert, in the study's order."""

_LABEL = 100  # letters of an offer's label that are kept: it becomes part of a trial's origin


@dataclass(frozen=True)
class Offer:
    """A soup that a rule may change to.

    Attributes:
        label: what would change, for people: `+math`, `-code`, `top 3`; at most 100 letters.
        gain: whether it must be better than the soup before; else a tie is enough.
    """

    soup: Counts
    label: str
    gain: bool = False


def reduced(counts: Counts) -> Counts:
    """The least counts of the same average: two of each are one of each."""
    common = gcd(*counts)
    return tuple(count // common for count in counts) if common else counts


def alone(position: int, experts: int) -> Counts:
    """One expert and no other."""
    return tuple(int(i == position) for i in range(experts))


def with_one_more(counts: Counts, position: int) -> Counts:
    """The soup with that expert counted once more."""
    return tuple(count + (i == position) for i, count in enumerate(counts))


def without(counts: Counts, position: int) -> Counts:
    """The soup without that expert, however often it was in it."""
    return tuple(0 if i == position else count for i, count in enumerate(counts))


def shares(counts: Counts, names: Sequence[str]) -> Mapping[str, float]:
    """The weight of each expert; they add up to 1."""
    total = sum(counts)
    return {name: count / total for name, count in zip(names, counts, strict=True)}


def described(counts: Counts, names: Sequence[str]) -> str:
    """The soup in words: `code + 2 math`."""
    parts = (f"{count} {name}" if count > 1 else name for name, count in zip(names, counts, strict=True) if count)
    return " + ".join(parts)


def labelled(text: str) -> str:
    """A label as an offer has it."""
    return text if len(text) <= _LABEL else f"{text[: _LABEL - 1]}…"
