"""What a soup's rule needs scored next; with idle workers also what it may need after that.

The rule is run on what was told. Where an answer is missing and its soups are already being scored, the rule is run on
with each answer that there may be, the likeliest first, until it asks for a soup that nobody scores yet. Whatever
answer comes, what was scored for another is known if it is asked for later, and changes no decision.
"""

import math
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count

from search.soups.book import Book
from search.soups.counts import Offer
from search.soups.oracle import Answers, Missing, Oracle

Rule = Callable[[Oracle], object]
DEEPEST = 40  # runs of a rule for one proposal


class Ended:
    """The rule has every answer it needs."""


def next_offer(rule: Rule, book: Book, runs: int = DEEPEST) -> Offer | Ended | None:
    """The soup to score next; None: nothing until one is told.

    Args:
        runs: 1 looks no further than the answer that is missing.
    """
    turns = count()
    heap: list[tuple[float, int, Answers]] = [(0.0, next(turns), {})]
    for _ in range(runs):
        if not heap:
            return None
        unlikely, _, assumed = heappop(heap)
        try:
            rule(Oracle(book, assumed))
        except Missing as missing:
            for offer in missing.offers:
                if not book.is_open(offer.soup):
                    return offer
            for answer, odds in missing.guesses:
                if odds > 0:
                    further = {**assumed, missing.question: answer}
                    heappush(heap, (unlikely - math.log(odds), next(turns), further))
        else:
            if not assumed:
                return Ended()
    return None
