"""lm-eval's generation requests answered with less work; what our loop may not answer goes to lm-eval's own.

The texts are those of stock's `HFLM.generate_until` at batch size 1: where a row of a larger batch went on after its
stop string, what followed is cut off all the same.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Any

from lm_eval.models.utils import normalize_gen_kwargs, postprocess_generated_text

from evaluation.errors import NonFiniteScore
from evaluation.lm.budget import Budget
from evaluation.lm.drafts import Drafts
from evaluation.lm.gencheck import lanes_agree
from evaluation.lm.gendecode import Decoder, Strand
from evaluation.lm.genlanes import alone
from evaluation.lm.genrules import Wish, ends, obstacle, wish
from evaluation.lm.plans import Bounded
from evaluation.lm.sharing import MOST_FAILURES
from evaluation.lm.stops import Stops

logger = logging.getLogger(__name__)

_KEPT_TOKENS = 1 << 22

Stock = Callable[[list[Any]], list[str]]


class Generator:
    """Answers the generation requests of one live model whose weights change between calls.

    Args:
        lm: lm-eval's model around it.
        budget: how much is computed at once.
        stock: answers requests as lm-eval does.
    """

    def __init__(self, lm: Any, budget: Budget, stock: Stock) -> None:
        self._lm, self._budget, self._stock = lm, budget, stock
        self._drafts = Drafts()
        self._ids: Bounded[str, list[int]] = Bounded(_KEPT_TOKENS, len)
        self._stops: dict[tuple[tuple[str, ...], frozenset[int]], Stops] = {}
        self._agrees, self._failures = False, 0
        self._told: set[str] = set()

    def answer(self, requests: Sequence[Any]) -> list[str]:
        """The texts of lm-eval's `generate_until` requests, in their order.

        Raises:
            MemoryError: one context alone does not fit.
            NonFiniteScore: an answer is to be drawn, and the model gives NaN for it.
        """
        texts: list[str | None] = [None] * len(requests)
        asked: dict[tuple[str, Wish], list[int]] = {}  # the same question more than once is answered once
        if self._may():
            for number, request in enumerate(requests):
                wished = wish(request.args[1], self._lm.max_gen_toks, self._end)
                if wished is not None and self._fits(request.args[0], wished):
                    asked.setdefault((request.args[0], wished), []).append(number)
        self._decode(requests, asked, texts)
        rest = [number for number, text in enumerate(texts) if text is None]
        if rest:
            self._require_chances([requests[number] for number in rest])
            for number, text in zip(rest, self._stock([requests[number] for number in rest]), strict=True):
                texts[number] = text
        return [text for text in texts if text is not None]

    def _decode(
        self, requests: Sequence[Any], asked: dict[tuple[str, Wish], list[int]], texts: list[str | None]
    ) -> None:
        """Answer the questions with our loop, and enter their texts."""
        model = self._lm.model
        strands = {}
        for (context, wished), numbers in asked.items():
            stops = self._stops_of(wished.until, ends(model))
            kept = self._lm.max_length - wished.most
            strand = Strand(context, self._encode(context)[-kept:], wished.most, stops)
            strands[id(strand)] = (strand, wished, numbers)

        def finished(strand: Strand) -> None:
            _, wished, numbers = strands[id(strand)]
            text = self._text(strand.answer, wished)
            for number in numbers:
                texts[number] = text
                self._lm.cache_hook.add_partial("generate_until", requests[number].args, text)

        decoder = Decoder(model, self._budget, self._drafts, finished)
        decoder.run([strand for strand, _, _ in strands.values()])
        if decoder.doubts:
            logger.info(
                "%d tokens were as likely as the next one: each decided alone",
                decoder.doubts,
                extra={"action": "lm.generation_doubts"},
            )

    def _require_chances(self, requests: Sequence[Any]) -> None:
        # torch cannot draw from NaN; on a GPU the attempt costs the whole process
        drawn = [each for each in requests if normalize_gen_kwargs(each.args[1], self._lm.max_gen_toks)["do_sample"]]
        if drawn and None not in (self._lm.eot_token_id, self._lm.model.get_output_embeddings()):
            context = self._encode(drawn[0].args[0])[-self._lm.max_length :]
            if alone(self._lm.model, context or [self._lm.eot_token_id]).isnan().any():
                raise NonFiniteScore(drawn[0].task_name, "the chances of the next token")

    @property
    def _end(self) -> str:
        return str(self._lm.tok_decode(self._lm.eot_token_id, skip_special_tokens=False))

    def _may(self) -> bool:
        """Whether our loop may run this model; says once why it may not."""
        reason = obstacle(self._lm.model)
        if self._lm.eot_token_id is None or self._lm.mixed_precision_dtype is not None:
            reason = "lm-eval was set up in another way"
        if reason is None and not self._agrees and self._failures < MOST_FAILURES:
            agrees = lanes_agree(self._lm.model)
            self._agrees, self._failures = bool(agrees), self._failures + (agrees is False)
        if reason is None and self._failures == MOST_FAILURES:
            reason = "its logits differ when rows are padded and cached"
        if reason is not None and reason not in self._told:
            self._told.add(reason)
            logger.info("generation as lm-eval does it: %s", reason, extra={"action": "lm.generation_stock"})
        return reason is None and self._agrees

    def _fits(self, context: str, wished: Wish) -> bool:
        # lm-eval refuses the one, and makes up a token for the other
        return self._lm.max_length > wished.most and len(self._encode(context)) > 0

    def _encode(self, context: str) -> list[int]:
        def encode() -> list[int]:
            return self._lm.tok_batch_encode([context], truncation=self._lm.truncation)[0][0].tolist()

        return self._ids.get(context, encode)

    def _stops_of(self, until: tuple[str, ...], tokens: frozenset[int]) -> Stops:
        key = until, tokens
        if key not in self._stops:
            self._stops[key] = Stops(self._lm.tokenizer, until, tokens)
        return self._stops[key]

    def _text(self, answer: list[int], wished: Wish) -> str:
        """The text of an answer, cut as lm-eval cuts it."""
        end = self._lm.think_end_token
        if isinstance(end, int) and end in answer:
            answer = answer[len(answer) - answer[::-1].index(end) :]
        text = self._lm.tok_decode(answer)
        text = text.lstrip() if isinstance(end, int) else text
        return str(
            postprocess_generated_text(text, list(wished.until), think_end_token=end if isinstance(end, str) else None)
        )
