"""The rotation between two models' residual streams: found where it was planted, whatever the batches."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from evaluation.unlike.turning import fit_turn
from tests.evaluation.unlike.models import draw_texts, pair_of
from tests.merging.permuting.decoders import decoder
from tests.merging.permuting.rotated import rotated, rotation_of


@pytest.mark.parametrize("name", ["llama", "qwen3", "phi3"])
def test_a_planted_rotation_is_found(tmp_path: Path, name: str) -> None:
    model, rotation = decoder(name), rotation_of(32, 2)
    pair = pair_of(tmp_path, model, rotated(model, rotation, 3.0))
    found = fit_turn(pair, pair.encode(draw_texts(40)))
    torch.testing.assert_close(found.turn.rotation, rotation, rtol=1e-3, atol=1e-3)
    assert found.after == pytest.approx(1.0) and abs(found.before) < 0.5


def test_equal_models_are_not_turned(tmp_path: Path) -> None:
    pair = pair_of(tmp_path, decoder(), decoder())
    found = fit_turn(pair, pair.encode(draw_texts(40)))
    torch.testing.assert_close(found.turn.rotation, torch.eye(32).double(), rtol=1e-6, atol=1e-6)
    assert found.before == pytest.approx(1.0)


def test_the_embedding_and_every_layer_count(tmp_path: Path) -> None:
    """What models of one embedding have in common where it is seen, they lose from layer to layer."""
    models = decoder(seed=1), decoder(seed=2)
    models[1].model.embed_tokens.weight.data.copy_(models[0].model.embed_tokens.weight)
    pair = pair_of(tmp_path, *models)
    found = fit_turn(pair, pair.encode(draw_texts(40)))
    layers = found.before - 1 / 4  # the embedding's cosine is 1, one of four
    assert 0 < layers < 0.7 and found.after > found.before


def test_small_batches_and_little_room_change_nothing(tmp_path: Path) -> None:
    pair = pair_of(tmp_path, decoder(seed=1), decoder(seed=2))
    texts = pair.encode(draw_texts(30))
    whole = fit_turn(pair, texts)
    assert whole.tokens == sum(text.positions for text in texts)
    before = pair.budget.tokens
    parts = fit_turn(replace(pair, room=32 * 48 * 100), texts)  # for 100 tokens and their sums
    assert pair.budget.tokens == 100 < before and parts.tokens == whole.tokens
    torch.testing.assert_close(parts.turn.rotation, whole.turn.rotation, rtol=1e-6, atol=1e-6)
    assert (parts.before, parts.after) == pytest.approx((whole.before, whole.after))
