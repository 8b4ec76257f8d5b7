"""The fewest rules "names that contain this text have this value" that set exceptions apart. No torch here."""

import re
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

V = TypeVar("V", bound=Hashable)


def cover(wanted: Mapping[str, V], otherwise: Mapping[str, V], texts: Iterable[str]) -> list[tuple[str, V]]:
    """Rules (text, value), the first that a name contains wins, that give every name the value it should have.

    Args:
        wanted: the value of each name.
        otherwise: what a name has that no rule fits.
        texts: readable texts, tried in this order; where none will do, whole names are used.
    """
    found = _Cover(dict(wanted), {name for name in wanted if wanted[name] != otherwise[name]})
    for text in texts:
        if not found.odd:
            return found.rules
        found.say(text)
    found.odd |= {name for name in found.left if any(part in name for part in found.odd)}  # names within names
    for name in sorted(found.odd, key=lambda name: (-len(name), name)):
        found.say(name)
    return found.rules


@dataclass
class _Cover(Generic[V]):
    """Rules as they are found.

    Attributes:
        left: the names that no rule fits yet, with their values.
        odd: those of them that need one.
    """

    left: dict[str, V]
    odd: set[str]
    rules: list[tuple[str, V]] = field(default_factory=list)

    def say(self, text: str, *, alone: bool = False) -> None:
        """Adds the rule of a text where it is true of all names that contain it, or sets more right than it gets wrong.

        What it would get wrong is said before it.

        Args:
            alone: only where it is true of all.
        """
        hits = [name for name in self.left if text in name]
        if not self.odd.intersection(hits):
            return
        common = Counter(self.left[name] for name in hits).most_common(1)[0][0]
        others = [name for name in hits if self.left[name] != common]
        gain = sum(name in self.odd and self.left[name] == common for name in hits)
        if others and (alone or gain <= len(others)):
            return
        self.odd.update(others)
        for special in inside(others):
            self.say(special, alone=True)
        hits = [name for name in hits if name in self.left]
        if self.odd.intersection(hits) and all(self.left[name] == common for name in hits):
            self.rules.append((text, common))
            self.odd.difference_update(hits)
            for name in hits:
                del self.left[name]


def suffix(name: str) -> str:
    """A tensor's name inside its layer: what follows the first number."""
    return re.sub(r"^(.*?\.)?\d+\.", "", name, count=1)


def inside(names: Iterable[str]) -> list[str]:
    """Names inside a layer, longer ones first, as whole parts of a name."""
    return sorted({f".{suffix(name)}" for name in names}, key=lambda text: (-len(text), text))
