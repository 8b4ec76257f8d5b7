"""Earlier candidates' answers, kept as guesses of what the next candidate will answer."""

import math
from array import array
from collections import OrderedDict
from collections.abc import Sequence

_ANSWERS_EACH = 4
_MOST_TOKENS = 4_000_000  # four bytes each
_MEMORY = 0.98  # how much of the trust each answer leaves


class Drafts:
    """The last few distinct answers to each request, the one that was right last first.

    A guess costs the positions it adds to a forward pass, so how much of one is handed out falls with the share of
    guessed tokens that turned out right, and rises with it again.

    Args:
        most_tokens: tokens kept in all; the requests not asked for longest are forgotten first.
    """

    def __init__(self, most_tokens: int = _MOST_TOKENS) -> None:
        self._answers: OrderedDict[str, list[array[int]]] = OrderedDict()
        self._most_tokens, self._tokens = most_tokens, 0
        self._trust = 1.0

    def guess(self, request: str, begun: Sequence[int], most: int) -> list[int]:
        """How the answer may go on.

        Args:
            request: its context.
            begun: token ids of the answer so far.
            most: tokens that may still follow.

        Returns:
            The rest of an earlier answer that began the same way, or less of it; empty when there is none.
        """
        start = array("i", begun)
        for answer in self._answers.get(request, ()):
            if len(answer) > len(start) and answer[: len(start)] == start:
                rest = answer[len(start) : len(start) + most].tolist()
                return rest[: math.ceil(len(rest) * min(1.0, 2 * self._trust))]
        return []

    def judge(self, guessed: int, right: int) -> None:
        """Tell how many of the guessed tokens the model confirmed."""
        if guessed:
            self._trust = _MEMORY * self._trust + (1 - _MEMORY) * max(right / guessed, 1e-3)

    def learn(self, request: str, answer: Sequence[int]) -> None:
        """Keep an answer as the best guess for the next candidate."""
        new = array("i", answer)
        kept = self._answers.setdefault(request, [])
        self._answers.move_to_end(request)
        if new in kept:
            kept.remove(new)
        else:
            self._tokens += len(new)
        kept.insert(0, new)
        while len(kept) > _ANSWERS_EACH:
            self._tokens -= len(kept.pop())
        while self._tokens > self._most_tokens and len(self._answers) > 1:
            self._tokens -= sum(map(len, self._answers.popitem(last=False)[1]))
