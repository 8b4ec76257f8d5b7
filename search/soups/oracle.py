"""What a soup's rule asks: which of these soups replaces this one? Answered from what was told, or assumed.

A rule is written as if every answer were there. Where one is not, asking breaks the rule off with what is missing
(`Missing`), and it is begun again when more was told: with the same answers it comes to the same place.
"""

from collections.abc import Mapping, Sequence

from search.soups.acceptance import Acceptance, Question, Settled
from search.soups.book import Book, Entry
from search.soups.counts import Counts, Offer, reduced

Answers = Mapping[Question, int | None]


class Missing(Exception):
    """An answer is not known.

    Attributes:
        offers: the soups that must be scored for it.
        question: what was asked.
        guesses: what the answer may be, the likeliest first, each with its odds.
    """

    def __init__(
        self, offers: Sequence[Offer], question: Question, guesses: Sequence[tuple[int | None, float]]
    ) -> None:
        super().__init__(", ".join(offer.label for offer in offers))
        self.offers, self.question, self.guesses = tuple(offers), question, tuple(guesses)


class Oracle:
    """Answers one run of a rule.

    Args:
        assumed: answers to questions, known or not.

    Attributes:
        lines: what was found so far, in order, for people.
    """

    def __init__(self, book: Book, assumed: Answers) -> None:
        self._book, self._assumed = book, assumed
        self.lines: list[str] = []
        self._asked = self._taken = 0

    def say(self, text: str) -> None:
        """Note something for people."""
        self.lines.append(text)

    def need(self, offers: Sequence[Offer]) -> list[Entry]:
        """How soups were judged that nothing is compared with yet. Raises Missing."""
        found = [self._book.entry(offer.soup) for offer in offers]
        lacking = [offer for offer, entry in zip(offers, found, strict=True) if entry is None]
        question: Question = ((), tuple(offer.soup for offer in lacking))
        if lacking and question not in self._assumed:
            raise Missing(lacking, question, [(0, 1.0)])
        return [entry or Entry(None) for entry in found]

    def pick(self, before: Counts, offers: Sequence[Offer], acceptance: Acceptance) -> int | None:
        """Which of the offered soups replaces the one before: the best that is accepted; None: none is.

        Raises:
            Missing: one of them was not told.
        """
        question = (before, tuple(offer.soup for offer in offers))
        if question in self._assumed:
            return self._assumed[question]
        settled = acceptance.settled.get(question)
        if settled is None:
            settled = acceptance.settled[question] = self._settle(question, offers, acceptance)
        answer, lines = settled
        self._asked += 1
        self._taken += answer is not None
        self.lines.extend(lines)
        return answer

    def _settle(self, question: Question, offers: Sequence[Offer], acceptance: Acceptance) -> Settled:
        """The answer and what there is to say of it, from what was told. Raises Missing."""
        before = question[0]
        old, found = self._book.entry(before), [self._book.entry(offer.soup) for offer in offers]
        lacking = [offer for offer, entry in zip(offers, found, strict=True) if entry is None]
        known = {i: entry for i, entry in enumerate(found) if entry is not None}
        order = sorted(known, key=lambda i: known[i].rank, reverse=True)
        if lacking or old is None:  # what is assumed to be the soup before has no score to compare with
            raise Missing(lacking, question, self._guesses(before, old, offers, known, order, acceptance))
        lines = []
        for i in order:
            ruling = acceptance.decide(before, old, offers[i], known[i])
            lines.append(f"{offers[i].label} {'accepted' if ruling.accepted else 'rejected'}: {ruling.why}")
            if ruling.accepted:
                return i, lines
        return None, lines

    def _guesses(
        self,
        before: Counts,
        old: Entry | None,
        offers: Sequence[Offer],
        known: Mapping[int, Entry],
        order: Sequence[int],
        acceptance: Acceptance,
    ) -> list[tuple[int | None, float]]:
        """The answers that may be: as often as in this run so far, something is taken."""
        taken = (self._taken + 1) / (self._asked + 2)
        first = [i for i in order if known[i].value is not None]
        if old is not None:
            best = next((i for i in order if acceptance.decide(before, old, offers[i], known[i]).accepted), None)
            first = [] if best is None else [best]
        able = [*first, *(i for i in range(len(offers)) if i not in known)]
        odds: list[tuple[int | None, float]] = [(i, taken / 2 ** min(k + 1, len(able) - 1)) for k, i in enumerate(able)]
        odds.append((None, 0.0 if old is not None and first else 1.0 - taken))
        return sorted(odds, key=lambda guess: -guess[1])


def same(one: Counts, other: Counts) -> bool:
    """Whether two counts make one average."""
    return reduced(one) == reduced(other)
