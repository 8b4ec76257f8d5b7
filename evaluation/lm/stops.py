"""Where a generated answer ends, as lm-eval's stop criterion says, without decoding the same tokens twice."""

from collections.abc import Sequence
from typing import Any

_MOST_TAILS = 200_000  # a few dozen bytes each


class Stops:
    """Says after which token an answer ends, for one set of stop strings and one tokenizer.

    lm-eval decodes the last tokens of an answer, two more than the stop string itself encodes to, and looks for the
    string there (`lm_eval.models.utils_hf.MultiTokenEOSCriteria`). So does this, hence pieces of characters, stop
    strings over several tokens and special tokens count exactly as they do there; but a tail of tokens that was
    looked at once is remembered, and answers of one task end in few ways.

    Args:
        tokenizer: decodes the tails.
        until: stop strings, lm-eval's end-of-text string among them.
        ends: token ids that end an answer whatever the strings say.
    """

    def __init__(self, tokenizer: Any, until: Sequence[str], ends: frozenset[int]) -> None:
        self._tokenizer, self._ends = tokenizer, ends
        by_length: dict[int, list[str]] = {}
        for string in until:
            by_length.setdefault(len(tokenizer.encode(string, add_special_tokens=False)) + 2, []).append(string)
        self._looks: list[tuple[int, list[str], dict[tuple[int, ...], bool]]] = [
            (length, strings, {}) for length, strings in sorted(by_length.items())
        ]

    def end(self, answer: Sequence[int]) -> bool:
        """Whether the answer ends with its last token; it is asked after every token.

        Args:
            answer: the generated token ids, at least one.
        """
        return answer[-1] in self._ends or any(
            self._shows(tuple(answer[-length:]), strings, known) for length, strings, known in self._looks
        )

    def _shows(self, tail: tuple[int, ...], strings: list[str], known: dict[tuple[int, ...], bool]) -> bool:
        shown = known.get(tail)
        if shown is None:
            text = self._tokenizer.decode(list(tail))
            shown = any(string in text for string in strings)
            if len(known) >= _MOST_TAILS:
                known.clear()
            known[tail] = shown
        return shown
