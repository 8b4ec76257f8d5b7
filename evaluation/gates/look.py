"""A short look at the live model: how it reads some search texts, and what it answers to some prompts."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise, zip_longest
from typing import Any

from lm_eval.api.instance import Instance

from evaluation.calibration import examples, prompts
from evaluation.harness import HarnessTask
from evaluation.suite import Suite
from merging.errors import InvalidStudy

TOKENS = 2_000  # read, about
PROMPTS = 8  # answered
LONGEST = 64  # tokens of an answer, where its task allows more
_EACH = 64  # documents of a task at most
_LEAST_PAIRS = 32  # of neighbouring tokens in all answers, before anything is said of them


@dataclass(frozen=True)
class Look:
    """What was seen.

    Attributes:
        perplexity: of a token of the texts; infinite where it is no number.
        distinct: the share of the pairs of neighbouring tokens in all answers that occur once only, each counted
            once; None: there are too few.
        ended: how many answers stopped by themselves.
        answers: how many there are.
    """

    perplexity: float
    distinct: float | None
    ended: int
    answers: int


class Looker:
    """Looks at whatever the live model holds.

    Args:
        lm: what answers for the live model, as the scorer has it.
    """

    def __init__(self, suite: Suite, lm: Any, tokenizer: Any) -> None:
        self._lm, self._tokenizer = lm, tokenizer
        texts = list(self._first(_texts(suite)))
        self._texts = [Instance("loglikelihood_rolling", {}, (text,), i) for i, text in enumerate(texts)]
        self._tokens = sum(map(self._count, texts))
        self._prompts = _prompts(suite)

    def look(self) -> Look:
        """Read and answer."""
        read = self._lm.loglikelihood_rolling(self._texts, disable_tqdm=True) if self._texts else []
        answers = self._lm.generate_until(self._prompts, disable_tqdm=True) if self._prompts else []
        limits = [request.args[1]["max_gen_toks"] for request in self._prompts]
        ended = sum(self._count(answer) < limit for answer, limit in zip(answers, limits, strict=True))
        return Look(_perplexity(math.fsum(read), self._tokens), self._distinct(answers), ended, len(answers))

    def _first(self, texts: Iterable[str]) -> Iterable[str]:
        """As many as have about so many tokens."""
        tokens = 0
        for text in texts:
            if tokens >= TOKENS:
                return
            tokens += self._count(text)
            yield text

    def _count(self, text: str) -> int:
        return len(self._ids(text))

    def _ids(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False))

    def _distinct(self, answers: Sequence[str]) -> float | None:
        pairs = [pair for ids in map(self._ids, answers) for pair in pairwise(ids)]
        return len(set(pairs)) / len(pairs) if len(pairs) >= _LEAST_PAIRS else None


def _perplexity(log_likelihood: float, tokens: int) -> float:
    if not math.isfinite(log_likelihood):
        return math.inf
    return math.exp(min(-log_likelihood / max(tokens, 1), 700.0))


def _texts(suite: Suite) -> list[str]:
    """Texts of the search documents, a document of each task in turn."""
    try:
        found = [(each.task, f"{each.prompt}{each.continuation}") for each in examples(suite, _EACH)]
    except InvalidStudy:  # a task does not say what is right
        found = [("", prompt) for prompt in prompts(suite, _EACH)]
    by_task: dict[str, list[str]] = {}
    for task, text in found:
        if text:
            by_task.setdefault(task, []).append(text)
    return _in_turn(by_task.values())


def _prompts(suite: Suite) -> list[Any]:
    """The first generation requests of the search documents, of each task in turn, with a limit that is short."""
    by_task = [
        [task.instances[i][0] for i in suite.order(task.name, "search")[:PROMPTS]]
        for task in suite.tasks
        if isinstance(task, HarnessTask)
    ]
    asked = _in_turn([[r for r in found if r.request_type == "generate_until"] for found in by_task])
    return [_shortened(request, i) for i, request in enumerate(asked[:PROMPTS])]


def _shortened(request: Any, number: int) -> Any:
    context, wishes = request.args
    limit = min(int(wishes.get("max_gen_toks", LONGEST)), LONGEST)
    return Instance("generate_until", {}, (context, {**wishes, "max_gen_toks": limit}), number)


def _in_turn(lists: Iterable[Sequence[Any]]) -> list[Any]:
    return [each for each in chain.from_iterable(zip_longest(*lists)) if each is not None]
