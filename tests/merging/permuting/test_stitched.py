"""Two models joined in one checkpoint, the back part in the front's coordinates: models that differ by a rotation."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from merging.checkpoint import INDEX, Checkpoint
from merging.errors import InvalidInput, InvalidModel, InvalidRecipe, OutputError
from merging.permuting.rotation import require_turnable, turned
from merging.permuting.stitched import RECORD, SCHEMA, Join, stitch
from merging.permuting.stitching import Turn
from tests.merging.factories import write_tensors
from tests.merging.permuting.decoders import decoder, logits, state
from tests.merging.permuting.rotated import checkpoint, offset, rotated, rotation_of

TURNABLE = (
    "gemma",
    "llama",
    "llama, biases",
    "llama, no groups",
    "llama, tied",
    "mistral",
    "phi3",
    "qwen2",
    "qwen3",
)
WIDTH = 32


def joining(turn: Turn) -> Callable[[], Join]:
    return lambda: Join(turn, {"why": "planted"})


def none_wanted() -> Join:
    raise AssertionError("the models should have been refused before")


@pytest.mark.parametrize("name", TURNABLE)
def test_a_model_turned_back_has_the_weights_it_had_before(tmp_path: Path, name: str) -> None:
    model, turn = decoder(name), Turn(rotation_of(WIDTH), 1.3)
    there = checkpoint(rotated(model, turn.rotation, turn.scale, offset(name)), tmp_path / "model")
    require_turnable(there)
    plain = rotated(model, torch.eye(WIDTH).double(), 1.0, offset(name))  # its norms folded, nothing else
    expected = state(plain)
    for each in there.names:
        if not each.endswith("embed_tokens.weight"):
            torch.testing.assert_close(turned(there, turn, each).float(), expected[each], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("after", [1, 2])
@pytest.mark.parametrize("name", TURNABLE)
def test_a_planted_rotation_is_undone_at_the_seam(tmp_path: Path, name: str, after: int) -> None:
    model, turn = decoder(name), Turn(rotation_of(WIDTH, 3), 1.0)
    back = rotated(model, turn.rotation, offset=offset(name))
    torch.testing.assert_close(logits(back), logits(model), rtol=1e-4, atol=1e-4)  # the same function
    front = checkpoint(model, tmp_path / "front")
    stitch(front, checkpoint(back, tmp_path / "back"), after, tmp_path / "joined", joining(turn))
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "joined")
    torch.testing.assert_close(logits(loaded), logits(model), rtol=1e-4, atol=1e-4)
    found = Checkpoint(tmp_path / "joined")
    for each in found.names:
        if f"layers.{after - 1}." in each or "embed_tokens" in each:
            assert torch.equal(found.tensor(each), front.tensor(each)), each  # the front's own, bit for bit


@pytest.mark.parametrize("tied", [False, True])
def test_a_model_joined_to_itself_computes_what_it_did(tmp_path: Path, tied: bool) -> None:
    model = decoder("llama, tied" if tied else "llama")
    made = checkpoint(model, tmp_path / "model", size="20KB")
    stitch(made, made, 2, tmp_path / "joined", joining(Turn(torch.eye(WIDTH).double(), 1.0)))
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "joined")
    torch.testing.assert_close(logits(loaded), logits(model), rtol=1e-5, atol=1e-5)
    assert loaded.config.tie_word_embeddings is False and (tmp_path / "joined" / INDEX).exists()


def test_a_scale_is_taken_in_by_what_the_back_writes(tmp_path: Path) -> None:
    model, turn = decoder("llama, biases", rms_norm_eps=1e-12), Turn(rotation_of(WIDTH, 4), 5.0)
    back = checkpoint(rotated(model, turn.rotation, turn.scale), tmp_path / "back")
    stitch(checkpoint(model, tmp_path / "front"), back, 1, tmp_path / "joined", joining(turn))
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "joined")
    torch.testing.assert_close(logits(loaded), logits(model), rtol=1e-4, atol=1e-4)


def test_models_of_other_depths_and_dtypes_are_joined(tmp_path: Path) -> None:
    front, back = decoder(num_hidden_layers=2, seed=1).bfloat16(), decoder(num_hidden_layers=5, seed=2)
    opened = checkpoint(front, tmp_path / "front"), checkpoint(back, tmp_path / "back")
    stitch(*opened, 2, tmp_path / "joined", joining(Turn(torch.eye(WIDTH).double(), 1.0)))
    found = Checkpoint(tmp_path / "joined")
    assert found.entry("model.layers.1.mlp.up_proj.weight").dtype == torch.bfloat16
    assert found.entry("model.layers.2.mlp.up_proj.weight").dtype == torch.float32
    assert found.config["num_hidden_layers"] == 5
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "joined").config.num_hidden_layers == 5


def test_what_stands_beside_the_weights(tmp_path: Path) -> None:
    front, back = checkpoint(decoder(), tmp_path / "front"), checkpoint(decoder(seed=1), tmp_path / "back")
    (front.path / "tokenizer.json").write_text('{"a": 1}')
    (back.path / "tokenizer.json").write_text('{"b": 1}')
    stitch(front, back, 1, tmp_path / "joined", joining(Turn(torch.eye(WIDTH).double(), 0.5)))
    assert (tmp_path / "joined" / "tokenizer.json").read_text() == '{"a": 1}'  # the embedding is the front's
    assert json.loads((tmp_path / "joined" / RECORD).read_text()) == {
        "schema": SCHEMA,
        "front": str(front.path),
        "back": str(back.path),
        "after": 1,
        "scale": 0.5,
        "why": "planted",
    }


@pytest.mark.parametrize("after", [-1, 0, 3, 4])
def test_layers_that_are_not_there_are_refused(tmp_path: Path, after: int) -> None:
    made = checkpoint(decoder(), tmp_path / "model")
    with pytest.raises(InvalidRecipe, match="use 1 to 2"):
        stitch(made, made, after, tmp_path / "joined", none_wanted)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        ("llama", {"hidden_size": 16, "head_dim": 8}, "BACK: hidden_size: 16 is 32"),
        ("llama", {"vocab_size": 67}, "BACK: vocab_size: 67 is 61"),
        ("qwen2", {}, "BACK: model_type: 'qwen2' is 'llama'"),
        ("llama", {"intermediate_size": 40}, "down_proj"),
        ("llama, biases", {}, "is of shape .* here and missing in"),
        ("gemma2", {}, "BACK: model_type: 'gemma2' is none of"),
        ("gemma3", {}, "is none of the models whose residual stream can be turned"),
        ("olmo2", {}, "is none of the models"),
    ],
)
def test_models_that_cannot_be_joined_are_refused(
    tmp_path: Path, name: str, changes: dict[str, Any], said: str
) -> None:
    front = checkpoint(decoder(), tmp_path / "front", "FRONT")
    back = checkpoint(decoder(name, **changes), tmp_path / "back", "BACK")
    with pytest.raises(InvalidModel, match=said) as error:
        stitch(front, back, 1, tmp_path / "joined", none_wanted)
    assert error.value.key.startswith("BACK")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["back", "front"]


def test_modules_that_are_not_understood_are_refused(tmp_path: Path) -> None:
    folder = write_tensors(tmp_path / "other", {"h.0.mlp.c_fc.weight": torch.zeros(2, 2)})
    (folder / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(InvalidModel, match="is not understood"):
        stitch(Checkpoint(folder), Checkpoint(folder), 1, tmp_path / "joined", none_wanted)


def test_nothing_is_left_behind_if_no_join_is_found(tmp_path: Path) -> None:
    made = checkpoint(decoder(), tmp_path / "model")

    def lost() -> Join:
        raise InvalidInput("--texts", None, "say nothing", "give others")

    with pytest.raises(InvalidInput, match="say nothing"):
        stitch(made, made, 1, tmp_path / "joined", lost)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    (tmp_path / "joined").mkdir()
    with pytest.raises(OutputError, match="exists"):
        stitch(made, made, 1, tmp_path / "joined", none_wanted)
    assert not list((tmp_path / "joined").iterdir())
