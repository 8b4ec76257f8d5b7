"""Whether a soup replaces the one before it, and why."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from search.soups.book import Entry
from search.soups.counts import Counts, Offer, reduced
from search.soups.paired import Paired, Scores, worst_fall

Question = tuple[Counts, tuple[Counts, ...]]
"""Which of these soups replaces the first?"""
Settled = tuple[int | None, list[str]]
"""The place of the one that does, and what there is to say of each."""

_SLACK = 1e-9  # sums in another order differ in the last bits


@dataclass(frozen=True)
class Ruling:
    """One decision: `why` compares the two in figures."""

    accepted: bool
    why: str


@dataclass(frozen=True)
class Terms:
    """By what a soup is accepted.

    Attributes:
        rule: `mean`: it is not worse; `paired`: a one-sided paired test says that it is better.
        p: the test's level.
        margin: standard errors of the difference by which it must be better; below 0: may be worse.
        guard: how far no task may fall, in the task's own units; None: as far as it likes.
    """

    rule: str = "mean"
    p: float = 0.2
    margin: float = 0.0
    guard: float | None = None

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> "Terms":
        """The terms that a strategy's options say."""
        guard = float(options["guard"])
        return cls(str(options["rule"]), float(options["p"]), float(options["margin"]), None if guard < 0 else guard)


class Acceptance:
    """Decides by terms, and keeps what was decided.

    Attributes:
        settled: questions whose soups were all told; what was told does not change.
    """

    def __init__(self, terms: Terms, paired: Paired) -> None:
        self._terms, self._paired = terms, paired
        self.settled: dict[Question, Settled] = {}
        self._known: dict[tuple[Counts, Counts, bool], Ruling] = {}
        self._read: tuple[Counts, Scores] = ((), ())  # of the soup that others are compared with, one after the other

    def decide(self, before: Counts, old: Entry, offer: Offer, new: Entry) -> Ruling:
        """Whether the offered soup replaces the one before; each told as it is.

        Raises:
            InvalidStudy: documents are to be tested, and a task has no value of a few of them.
        """
        key = (reduced(before), reduced(offer.soup), offer.gain)
        if key not in self._known:
            self._known[key] = self._decide(key[0], old, offer, new)
        return self._known[key]

    def _decide(self, before: Counts, old: Entry, offer: Offer, new: Entry) -> Ruling:
        if new.value is None:
            return Ruling(False, "it could not be scored")
        if old.value is None:
            return Ruling(True, f"{new.value:.4f}, and the soup before could not be scored")
        if new.violation != old.violation:
            nearer = new.violation < old.violation
            return Ruling(nearer, f"{'nearer to' if nearer else 'farther from'} meeting the constraints")
        gain, names = new.value - old.value, (before, reduced(offer.soup))
        sign = ">" if gain > 0 else "=" if gain == 0 else "<"
        said = f"{new.value:.4f} {sign} {old.value:.4f}"
        if self._needs_documents and old.scores is not None and new.scores is not None:
            return self._by_documents(gain, offer, said, (new.scores(), self._scores(before, old)), names)
        return Ruling(gain > 0 or (gain == 0 and not offer.gain), said)

    def _by_documents(
        self, gain: float, offer: Offer, said: str, both: tuple[Scores, Scores], names: tuple[Counts, Counts]
    ) -> Ruling:
        terms, least, tested = self._terms, 0.0, True
        if terms.margin:
            error = self._paired.stderr(*both, names)
            least = terms.margin * error
            said += f", standard error {error:.4f}"
        accepted = gain >= least - _SLACK if terms.margin else gain >= 0.0
        accepted = accepted and (gain > 0 or not offer.gain)
        if terms.rule == "paired":
            p = self._paired.p_better(*both, names)
            said, tested = f"{said}, p = {p:.2g}", p < terms.p
        fall, task = worst_fall(*both)
        if terms.guard is not None and fall > terms.guard + _SLACK:
            return Ruling(False, f"{said}, {task} falls by {fall:.4f}")
        return Ruling(accepted and tested, said)

    @property
    def _needs_documents(self) -> bool:
        return self._terms.rule == "paired" or self._terms.margin != 0.0 or self._terms.guard is not None

    def _scores(self, soup: Counts, entry: Entry) -> Scores:
        if self._read[0] != soup:
            assert entry.scores is not None, "it is asked for where there are some"
            self._read = (soup, entry.scores())
        return self._read[1]
