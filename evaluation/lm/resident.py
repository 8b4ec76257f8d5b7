"""lm-eval's Hugging Face model around a live one: the same scores for far less.

What it does other than stock `HFLM`: sequences that begin alike are computed once, side by side in one row (tree.py);
batches hold as many positions as fit, not as many requests (budget.py); logits are computed where a target is
(reader.py); what to compute is worked out once a group of requests, not once a candidate (plans.py). It draws no
progress bars, counts tokens and calls back before every forward pass.

One stock result is not reproduced: where one request's context is another's with its continuation's beginning, stock
reads the shorter continuation's probabilities at the longer one's positions.
"""

import contextlib
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any

from lm_eval.models.huggingface import HFLM
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from evaluation.errors import TaskBroken
from evaluation.lm.budget import Budget, out_of_memory
from evaluation.lm.generation import Generator
from evaluation.lm.plans import Bounded, Pair, Plan, make_plan
from evaluation.lm.reader import Read, Reader, summed
from evaluation.lm.sharing import Sharing
from evaluation.lm.tree import Row, chains
from evaluation.passes import watched_passes

Tokens = list[int]
_PLAN_BYTES, _KEPT_TOKENS = 1 << 29, 1 << 22


class ResidentLM(HFLM):
    """One live model whose weights change between calls.

    Args:
        model: a Hugging Face causal language model in evaluation mode.
        tokenizer: its tokenizer.
        batch_size: the most rows of one forward pass; None: as many positions as fit in memory.

    Attributes:
        tokens: positions the model computed since the last `watched` began, padding included.
        answered: requests answered since then.
        budget: what one forward pass may hold.
    """

    def __init__(self, model: Any, tokenizer: Any, batch_size: int | None) -> None:
        # the stock command takes everything else from its defaults too
        super().__init__(pretrained=model, tokenizer=tokenizer, batch_size=batch_size or 1)
        self.tokens = 0
        self.answered = 0
        self.budget = Budget(model, self.device, batch_size)
        self._reader = Reader(model, self.softmax_dtype)
        self._sharing = Sharing(model, self._reader)
        self._plans: Bounded[Any, Plan] = Bounded(_PLAN_BYTES, lambda plan: plan.nbytes)
        self._ids: Bounded[Any, Tokens] = Bounded(_KEPT_TOKENS, len)
        self._generator = Generator(self, self.budget, self._stock_texts)
        self.set_cache_hook(_Answers(self))

    @contextlib.contextmanager
    def watched(self, heartbeat: Callable[[], None]) -> Iterator[None]:
        """Count from zero, and call `heartbeat` before every forward pass; what it raises ends the call."""
        self.tokens = self.answered = 0

        def before(positions: int) -> None:
            heartbeat()
            self.tokens += positions

        with watched_passes(self.model, before):
            yield

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, left_truncate_len: int | None = None, **kwargs: Any
    ) -> Tokens:
        def encode() -> Tokens:
            return super(ResidentLM, self).tok_encode(string, add_special_tokens, left_truncate_len, **kwargs)

        return encode() if kwargs else self._ids.get((string, add_special_tokens, left_truncate_len), encode)

    def loglikelihood(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        asked = tuple(request.args for request in requests)
        answers = self._answers(("choices", asked), lambda: [[self._pair_of(request)] for request in requests])
        return [answer for (answer,) in answers]

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        asked = tuple(request.args for request in requests)
        answers = self._answers(("rolling", asked), lambda: [self._windows(text) for (text,) in asked], greedy=False)
        return [sum((value for value, _ in windows), 0.0) for windows in answers]

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        return self._generator.answer(requests)

    def _stock_texts(self, requests: list[Any]) -> list[str]:
        return super().generate_until(requests, disable_tqdm=True)

    def _loglikelihood_tokens(
        self, requests: Any, disable_tqdm: bool = False, override_bs: int | None = None
    ) -> list[tuple[float, bool]]:
        asked = tuple((tuple(context), tuple(continuation)) for _, context, continuation in requests)
        answers = self._answers(("tokens", asked), lambda: [[(list(c), list(t))] for c, t in asked])
        return [answer for (answer,) in answers]

    def _pair_of(self, request: Any) -> Pair:
        """Token ids of a request that can be scored; stock fails on the others without saying which they are."""
        context, continuation = self.pair(*request.args)
        if not context or not 0 < len(continuation) <= self.max_length:
            found = f"{len(context)} tokens of context and {len(continuation)} of continuation {request.args[1]!r:.80}"
            raise TaskBroken(request.task_name, f"{found} cannot be scored with {self.max_length} positions")
        return context, continuation

    def pair(self, context: str, continuation: str) -> Pair:
        """Token ids of a request; an empty context is the prefix token, as in lm-eval's `TemplateLM`."""
        if context:
            return self._encode_pair(context, continuation)
        ids = self.tok_encode(continuation, add_special_tokens=False)
        return (ids[:1], ids[1:]) if ids[:1] == [self.prefix_token_id] else ([self.prefix_token_id], ids)

    def _windows(self, text: str) -> list[Pair]:
        windows = get_rolling_token_windows(self.tok_encode(text), self.prefix_token_id, self.max_length, 1)
        return [make_disjoint_window(window) for window in windows]

    def _answers(
        self, key: Hashable, encode: Callable[[], list[list[Pair]]], greedy: bool = True
    ) -> list[list[tuple[float, bool]]]:
        """Log-likelihood of each pair of each request, and whether it is what the model would say (if asked for)."""
        plan = self._plan(key, encode, self._sharing.deepest)
        if not self._sharing.allows(plan.rows):
            plan = self._plan(key, encode, 0)
        found: dict[int, tuple[float, bool]] = {}
        already, done = self.answered, 0.0

        def compute(batch: Sequence[Row]) -> None:
            nonlocal done
            read = self._read(batch, greedy)
            if read is None:
                self.budget.run(sorted(chains(batch[0]), key=len, reverse=True), len, compute)
                return
            answers = summed(batch, read)
            found.update(answers)
            done += plan.shares[list(answers)].sum()
            self.answered = already + round(done)

        for branched in (True, False):  # plain rows need no mask, and without one they are faster
            self.budget.run([row for row in plan.rows if row.branched is branched], len, compute)
        pairs = iter([found[number] for number in plan.which.tolist()])
        return [[next(pairs) for _ in range(size)] for size in plan.sizes]

    def _read(self, batch: Sequence[Row], greedy: bool) -> Read | None:
        """What the model says of a batch; None if it is one row that is too large but can be taken apart."""
        if len(batch) > 1 or not batch[0].branched:
            return self._reader.read(batch, greedy)
        try:
            return self._reader.read(batch, greedy)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
        return None

    def _plan(self, key: Hashable, encode: Callable[[], list[list[Pair]]], deepest: int) -> Plan:
        hidden = int(getattr(self.config.get_text_config(), "hidden_size", 1024))
        return self._plans.get((deepest, key), lambda: make_plan(encode(), self.max_length, deepest, hidden))


class _Answers:
    """lm-eval's seam for a response cache: told of every answer that stock code gives. Used to count them."""

    def __init__(self, lm: ResidentLM) -> None:
        self._lm = lm

    def add_partial(self, attr: str, request: Any, answer: Any) -> None:
        self._lm.answered += 1
