"""Answers end where lm-eval's own criterion says, token by token."""

import random
from typing import Any

import pytest
import torch
from lm_eval.models.utils_hf import stop_sequences_criteria
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from evaluation.lm.stops import Stops


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    """Bytes, and some pairs of them: characters come in pieces, strings in several spellings."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("Ċ", "Ċ"), ("a", "b"), ("ab", "c"), ("Ġ", "a"), ("Ã", "©")]
    vocabulary = {token: i for i, token in enumerate([*letters, *("".join(pair) for pair in merges), "<end>"])}
    made = Tokenizer(models.BPE(vocabulary, merges))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<end>", pad_token="<end>")


@pytest.mark.parametrize(
    "until",
    [["\n\n"], ["é"], ["abc", "bc"], ["bc", " abc"], ["<end>"], ["a", "\n", "é"], [""], [], ["b\n\n"]],
)
def test_it_says_what_lm_eval_says_after_every_token(tokenizer: Any, until: list[str]) -> None:
    stops = Stops(tokenizer, until, frozenset())
    pieces = tokenizer.encode("a b c \n\n é abc ab\n <end>") + tokenizer.convert_tokens_to_ids(
        ["b", "c", "Ċ", "Ã", "©"]
    )
    rng = random.Random(0)
    ended = 0
    for _ in range(60):
        answer = rng.choices(pieces, k=12)
        stock = stop_sequences_criteria(tokenizer, until, 0, 1)
        for length in range(1, len(answer) + 1):
            begun = torch.tensor([answer[:length]])
            expected = any(bool(criterion(begun, None)) for criterion in stock)
            assert stops.end(answer[:length]) is expected, tokenizer.decode(answer[:length])
            if expected:
                ended += 1
                break
    assert ended or not until


def test_a_token_may_end_an_answer_whatever_the_strings(tokenizer: Any) -> None:
    stops = Stops(tokenizer, ["\n"], frozenset([5]))
    assert stops.end([1, 5])
    assert not stops.end([5, 1])


def test_what_was_decoded_once_is_not_decoded_again(tokenizer: Any) -> None:
    asked: list[list[int]] = []

    class Counting:
        encode = staticmethod(tokenizer.encode)

        def decode(self, tokens: list[int]) -> str:
            asked.append(tokens)
            return str(tokenizer.decode(tokens))

    stops = Stops(Counting(), ["\n\n", "é"], frozenset())
    first = [stops.end(list(range(9))[:n]) for n in range(1, 10)]
    decoded = len(asked)
    assert [stops.end(list(range(9))[:n]) for n in range(1, 10)] == first
    assert len(asked) == decoded > 0
    assert max(map(len, asked)) <= 4
