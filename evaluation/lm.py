"""lm-eval's Hugging Face model around a live one: same scores, and it reports what it is doing.

Differences to stock `HFLM`: it draws no progress bars, keeps the token ids of strings it has seen (candidates share
the tokenizer and the prompts), counts tokens and calls back before every forward pass.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from lm_eval.defaults import DEFAULT_OTHER_SEED
from lm_eval.models.huggingface import HFLM


class ResidentLM(HFLM):
    """One live model whose weights change between calls.

    Attributes:
        tokens: positions the model computed since the last `watched` began, padding included.
        answered: requests answered since then; a document longer than the context window may count twice.
    """

    def __init__(self, model: Any, tokenizer: Any, batch_size: int) -> None:
        # the stock command takes everything else from its defaults too
        super().__init__(pretrained=model, tokenizer=tokenizer, batch_size=batch_size)
        self.tokens = 0
        self.answered = 0
        self._ids: dict[tuple[Any, ...], list[int]] = {}
        self.set_cache_hook(_Answers(self))

    @contextlib.contextmanager
    def watched(self, heartbeat: Callable[[], None]) -> Iterator[None]:
        """Count from zero, and call `heartbeat` before every forward pass; what it raises ends the call."""
        self.tokens = self.answered = 0

        def before(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            heartbeat()
            ids = args[0] if args else kwargs["input_ids"]  # [batch, positions]
            self.tokens += ids.numel()

        handle = self.model.register_forward_pre_hook(before, with_kwargs=True)
        try:
            with torch.random.fork_rng():  # tasks that sample give every candidate the same noise
                torch.manual_seed(DEFAULT_OTHER_SEED)
                yield
        finally:
            handle.remove()

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, left_truncate_len: int | None = None, **kwargs: Any
    ) -> list[int]:
        key = (string, add_special_tokens, left_truncate_len)
        if key not in self._ids:
            self._ids[key] = super().tok_encode(string, add_special_tokens, left_truncate_len, **kwargs)
        return self._ids[key]

    def _loglikelihood_tokens(
        self, requests: Any, disable_tqdm: bool = False, override_bs: int | None = None
    ) -> list[tuple[float, bool]]:
        # the rolling path asks for bars whatever its caller said
        answers: list[tuple[float, bool]] = super()._loglikelihood_tokens(requests, True, override_bs)
        if requests and requests[0][0] is None:  # windows of a rolling request are not announced one by one
            self.answered += len(requests)
        return answers


class _Answers:
    """lm-eval's seam for a response cache: told of every answer. Used to count them."""

    def __init__(self, lm: ResidentLM) -> None:
        self._lm = lm

    def add_partial(self, attr: str, request: Any, answer: Any) -> None:
        if attr != "loglikelihood_rolling":
            self._lm.answered += 1
