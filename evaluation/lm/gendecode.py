"""The greedy loop: earlier candidates' answers verified at once, finished rows retired, beginnings computed once."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from evaluation.lm.budget import Budget
from evaluation.lm.drafts import Drafts
from evaluation.lm.genlanes import Lanes, alone
from evaluation.lm.stops import Stops

_STEM_TOKENS, _STEM_ROWS = 32, 4  # a shared beginning is worth a forward pass of its own from here on
_GROWTH = 64  # positions reserved for an answer: most end long before their limit
# Two logits closer than this share of the largest one may change places with the shape of the batch: the rounding
# of the last layers, two units in the last place of half precision
_DOUBT = {torch.bfloat16: 2.0**-6, torch.float16: 2.0**-9}
_DOUBT_OTHERWISE = 2.0**-14


@dataclass
class Strand:
    """A context and its answer so far.

    Attributes:
        request: what earlier answers to it are kept under.
        context: token ids, at least one.
        most: the most tokens of an answer.
        stops: says where it ends.
        answer: token ids, the one that ended it included.
        done: whether it has ended.
    """

    request: str
    context: list[int]
    most: int
    stops: Stops
    answer: list[int] = field(default_factory=list)
    done: bool = False

    def add(self, token: int) -> None:
        """One more token of the answer, which may end it."""
        self.answer.append(token)
        self.done = len(self.answer) == self.most or self.stops.end(self.answer)


class Decoder:
    """Answers strands greedily on one live model.

    Where the two likeliest tokens are so close that the shape of a batch could decide between them, the sequence is
    computed again by itself and that decides: so an answer depends neither on the batch nor on the guesses.

    Args:
        budget: how much is computed at once.
        finished: told of every strand that has ended, once.

    Attributes:
        doubts: how often two tokens were that close.
    """

    def __init__(self, model: Any, budget: Budget, drafts: Drafts, finished: Callable[[Strand], None]) -> None:
        self._model, self._budget, self._drafts, self._finished = model, budget, drafts, finished
        self._doubt = _DOUBT.get(model.dtype, _DOUBT_OTHERWISE)
        self.doubts = 0

    def run(self, strands: Sequence[Strand]) -> None:
        """Answer all of them.

        Raises:
            MemoryError: one context alone does not fit.
        """
        for stem, group in _grouped(strands):
            trunk = None
            if stem:
                trunk = Lanes(self._model, 1)
                trunk.feed([stem], [1])
                trunk.keep([0], [0])
            group.sort(key=lambda strand: (-self._length(strand), strand.context))
            self._budget.run(group, _positions, partial(self._batch, trunk))

    def _batch(self, trunk: Lanes | None, batch: Sequence[Strand]) -> None:
        # asked again after memory ran out, it goes on where it was
        rows = [strand for strand in batch if not strand.done]
        lanes = Lanes(self._model, len(rows), trunk)
        shared = lanes.held[0] if rows else 0
        new = [[*strand.context, *strand.answer][shared:] for strand in rows]
        while rows:
            guesses = [self._guess(strand) for strand in rows]
            wanted = [max(1, len(guess)) for guess in guesses]
            logits = lanes.feed([[*n, *guess[:-1]] for n, guess in zip(new, guesses, strict=True)], wanted)
            tokens, close = self._likeliest(logits)
            taken, start = [], 0
            for strand, guess, count in zip(rows, guesses, wanted, strict=True):
                taken.append(self._take(strand, guess, tokens[start : start + count], close[start : start + count]))
                start += count
            going = [i for i, strand in enumerate(rows) if not strand.done]
            if going:
                lanes.keep(going, [wanted[i] - taken[i] for i in going])
            rows = [rows[i] for i in going]
            new = [strand.answer[-1:] for strand in rows]

    def _length(self, strand: Strand) -> int:
        """Positions of its first forward pass."""
        return len(strand.context) + len(self._guess(strand))

    def _guess(self, strand: Strand) -> list[int]:
        return self._drafts.guess(strand.request, strand.answer, strand.most - len(strand.answer))

    def _take(self, strand: Strand, guess: Sequence[int], tokens: Sequence[int], close: Sequence[bool]) -> int:
        """Add the tokens the guess was right about and the one after them; gives how many those are."""
        right = 0
        for place, token in enumerate(tokens):
            if close[place]:
                self.doubts += 1
                token = int(alone(self._model, [*strand.context, *strand.answer]).argmax())
            strand.add(token)
            agreed = place < len(guess) and guess[place] == token
            right += agreed
            if strand.done or not agreed:
                break
        self._drafts.judge(len(guess), right)
        if strand.done:
            self._drafts.learn(strand.request, strand.answer)
            self._finished(strand)
        return place + 1

    def _likeliest(self, logits: torch.Tensor) -> tuple[list[int], list[bool]]:
        """The likeliest tokens of [N, vocabulary] logits, and whether each is hardly likelier than the next."""
        first, second = logits.topk(2).values.float().unbind(-1)
        close = first - second < self._doubt * logits.abs().amax(-1)
        return logits.argmax(-1).tolist(), close.tolist()


def _positions(strand: Strand) -> int:
    return len(strand.context) + min(strand.most, _GROWTH)


def _grouped(strands: Sequence[Strand]) -> Iterator[tuple[list[int], list[Strand]]]:
    """Strands that begin alike, with their common beginning (a fixed few-shot prompt); last all that share little."""
    alike: dict[tuple[int, ...], list[Strand]] = {}
    for strand in strands:
        alike.setdefault(tuple(strand.context[:_STEM_TOKENS]), []).append(strand)
    alone: list[Strand] = []
    for group in alike.values():
        # the last token stays out: its logits are wanted
        stem = _common([strand.context[:-1] for strand in group])
        if len(group) >= _STEM_ROWS and len(stem) >= _STEM_TOKENS:
            yield stem, group
        else:
            alone += group
    if alone:
        yield [], alone


def _common(sequences: Sequence[list[int]]) -> list[int]:
    """What all begin with: what the least and the greatest of them do."""
    first, last = min(sequences), max(sequences)
    differing = (i for i, (one, other) in enumerate(zip(first, last, strict=False)) if one != other)
    return first[: next(differing, min(len(first), len(last)))]
