"""What a row of the strategies' table says: the records `Declared` and `Option`. No torch, no Optuna here."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from merging.catalog import Scalar
from merging.errors import InvalidStudy
from search.spacespec import near


@dataclass(frozen=True)
class Option:
    """One setting of a strategy, a key of `search.options`.

    Attributes:
        default: its value where a study says nothing.
        low, high: inclusive, of numbers.
    """

    name: str
    doc: str
    kind: Literal["float", "int", "bool", "choice", "text"]
    default: Scalar
    low: float = float("-inf")
    high: float = float("inf")
    choices: tuple[str, ...] = ()

    def check(self, value: Scalar) -> Scalar:
        """The value in the option's own type.

        Raises:
            InvalidStudy: it is none of the option's.
        """
        key = f"search.options.{self.name}"
        if self.kind == "choice" and value not in self.choices:
            raise InvalidStudy(key, value, "is not a choice", near(str(value), self.choices))
        wanted = {"bool": (bool,), "text": (str,), "choice": (str,)}.get(self.kind, (int, float))
        whole = self.kind != "int" or (not isinstance(value, str) and float(value).is_integer())
        if not isinstance(value, wanted) or (isinstance(value, bool) and self.kind != "bool") or not whole:
            raise InvalidStudy(key, value, f"is not of type {self.kind}", f"use a value such as {self.default!r}")
        if self.kind in ("int", "float") and not self.low <= float(value) <= self.high:
            raise InvalidStudy(key, value, "is out of range", f"use a value in [{self.low:g}, {self.high:g}]")
        return int(value) if self.kind == "int" else float(value) if self.kind == "float" else value


@dataclass(frozen=True)
class Declared:
    """What a study must know of a strategy.

    Attributes:
        summary: what it does, a clause without a full stop.
        source: where it comes from, a URL; empty: from here.
        choices: whether it takes spaces with choices (several methods, one-hot methods, switches).
        several: whether it takes several objectives (`pareto`).
        whole: whether it compares scores on all documents, so that no trial may be stopped early.
        warm: whether it begins with the pool of starts, or with the baselines and the methods' defaults alone.
        restacks: whether its recipes have other layers than the models.
        check: raises InvalidStudy for options that are not enough or not to be; None: it needs none.
    """

    name: str
    summary: str
    source: str = ""
    options: tuple[Option, ...] = ()
    choices: bool = True
    several: bool = False
    whole: bool = False
    warm: bool = True
    restacks: bool = False
    check: Callable[[Mapping[str, Any]], None] | None = None

    @property
    def alone(self) -> bool:
        """Whether a study may name it without any options."""
        return self.check is None
