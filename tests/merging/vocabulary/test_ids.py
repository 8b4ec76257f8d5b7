"""Ids in a configuration follow their tokens; everything else in it stays."""

from typing import Any

import pytest

from merging.vocabulary.alignment import make_alignment
from merging.vocabulary.ids import translated
from tests.merging.vocabulary.makers import vocabulary

ALIGNMENT = make_alignment("x", vocabulary([*"abc", "<gone>"], 8), {"x": vocabulary([*"cba", "<new>", "<more>"], 16)})


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"eos_token_id": 0}, {"eos_token_id": 2}),
        ({"eos_token_id": [0, 3, 2]}, {"eos_token_id": [2, 0]}),
        ({"eos_token_id": 3}, {"eos_token_id": 4}),
        ({"eos_token_id": [3]}, {"eos_token_id": 4}),
        ({"sep_token_id": 3}, {"sep_token_id": None}),
        ({"pad_token_id": None, "bos_token_id": -1}, {"pad_token_id": None, "bos_token_id": -1}),
        ({"text_config": {"eos_token_id": 0, "vocab_size": 8}}, {"text_config": {"eos_token_id": 2, "vocab_size": 16}}),
        ({"vocab_size": 8, "vision_config": {"vocab_size": 5}}, {"vocab_size": 16, "vision_config": {"vocab_size": 5}}),
        ({"image_token_index": 0, "hidden_size": 0}, {"image_token_index": 2, "hidden_size": 0}),
        ({"suppress_tokens": [0, 3]}, {"suppress_tokens": [2]}),
        ({"bad_words_ids": [[0, 3], [1], [0, 2]]}, {"bad_words_ids": [[1], [2, 0]]}),
        ({"forced_decoder_ids": [[1, 0], [2, None], [3, 3]]}, {"forced_decoder_ids": [[1, 2], [2, None]]}),
    ],
)
def test_ids_follow_their_tokens(config: dict[str, Any], expected: dict[str, Any]) -> None:
    before = str(config)
    assert translated(config, ALIGNMENT, {"eos_token_id": 4}) == expected
    assert str(config) == before, "the models' own configuration is left as it is"


def test_without_an_alignment_nothing_moves() -> None:
    assert translated({"vocab_size": 8, "eos_token_id": 0}, None, {}) == {"vocab_size": 8, "eos_token_id": 0}
