"""Two models read the same tokens, or are told why they cannot."""

from pathlib import Path

import pytest
import torch

from evaluation.artefacts.texts import Text
from evaluation.unlike.pair import Side, open_pair
from evaluation.unlike.taps import replaced, tapped, unpadded
from merging.checkpoint import Checkpoint
from merging.errors import InvalidModel, InvalidStudy
from tests.evaluation.unlike.models import LETTERS, pair_of, write
from tests.merging.permuting.decoders import decoder, logits


def test_texts_are_read_as_both_tokenizers_give_them_long_ones_in_pieces(tmp_path: Path) -> None:
    pair = pair_of(tmp_path, decoder(), decoder(seed=1, max_position_embeddings=32))
    found = pair.encode(["abc", "z", "a" * 70, "b" * 33])
    assert [[*text.context, *text.answer] for text in found] == [[1, 2, 3], [1] * 32, [1] * 32, [1] * 6, [2] * 32]
    assert all(len(text.context) == 1 for text in found)


def test_tokenizers_that_do_not_agree_are_refused(tmp_path: Path) -> None:
    folders = write(decoder(), tmp_path / "ours"), write(decoder(), tmp_path / "theirs", LETTERS[::-1])
    pair = open_pair(Checkpoint(folders[0], "--like"), Checkpoint(folders[1], "MODEL"), "cpu")
    with pytest.raises(InvalidModel, match=r"other tokens than .*ours gives it; use models of one tokenizer") as error:
        pair.encode(["n", "abc"])  # the letter in the middle is the same in both
    assert error.value.key == "MODEL" and "'abc'" in error.value.problem


def test_texts_without_a_sequence_are_refused(tmp_path: Path) -> None:
    pair = pair_of(tmp_path, decoder(), decoder(seed=2))
    with pytest.raises(InvalidStudy, match=r"--texts: 1 give no sequence of two tokens; give more"):
        pair.encode(["a"])


def test_tokens_without_a_row_are_refused(tmp_path: Path) -> None:
    folder = write(decoder(), tmp_path / "ours", first=100)
    pair = open_pair(Checkpoint(folder, "FRONT"), Checkpoint(folder, "BACK"), "cpu")
    with pytest.raises(
        InvalidModel, match="has 61 rows of embeddings, but its tokenizer gives the texts the token 102"
    ):
        pair.encode(["abc"])


def test_a_folder_without_a_tokenizer_is_refused_by_its_name(tmp_path: Path) -> None:
    decoder().save_pretrained(tmp_path / "bare")
    whole = Checkpoint(write(decoder(), tmp_path / "whole"), "FRONT")
    with pytest.raises(InvalidModel, match="cannot be loaded") as error:
        open_pair(whole, Checkpoint(tmp_path / "bare", "BACK"), "cpu")
    assert error.value.key == "BACK"


def test_activations_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    side: Side = pair_of(tmp_path, decoder(), decoder()).theirs
    assert torch.equal(side.finite(torch.ones(3)), torch.ones(3))
    with pytest.raises(InvalidModel, match=r"BACK.*computes NaN or infinity on the texts"):
        side.finite(torch.tensor([1.0, torch.nan]))


@torch.no_grad()
def test_taps_see_both_ends_and_nothing_once_they_are_gone(tmp_path: Path) -> None:
    side = pair_of(tmp_path, decoder("phi3"), decoder()).ours
    assert side.depth == 3
    down = side.module("model.layers.1.mlp.down_proj.weight")
    assert down is side.live.model.layers[1].mlp.down_proj
    seen: dict[str, torch.Tensor] = {}
    with tapped({"stream": side.stream(3)}, seen.__setitem__):
        answer = logits(side.live)
    torch.testing.assert_close(side.live.lm_head(side.live.model.norm(seen["stream"])), answer)
    with replaced(side.stream(3).module, lambda: torch.zeros_like(seen["stream"])):
        assert not logits(side.live).any()
    seen.clear()
    torch.testing.assert_close(logits(side.live), answer)
    assert not seen


def test_padding_is_left_out() -> None:
    texts = [Text([1], [2, 3, 4]), Text([1], [2])]  # three positions and one
    values = torch.arange(2 * 3 * 2).view(2, 3, 2)
    assert torch.equal(unpadded(values, texts), values.view(6, 2)[[0, 1, 2, 3]])
    with pytest.raises(RuntimeError, match="not the values of all positions"):
        unpadded(values[:, :2], texts)
