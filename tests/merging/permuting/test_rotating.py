"""A model in another one's coordinates: it computes what it did, has the other's norms, and averages with it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from merging.checkpoint import INDEX, SINGLE, Checkpoint
from merging.errors import InvalidModel, InvalidRecipe, OutputError
from merging.permuting.apply import permute
from merging.permuting.export import RECORD, SCHEMA
from merging.permuting.matching import Match
from merging.permuting.rotating import LEAST, Turning, align_rotated
from merging.permuting.stitching import Turn
from tests.merging.permuting.decoders import decoder, logits, random_orders, specification, state
from tests.merging.permuting.rotated import checkpoint, offset, rotated, rotation_of

UNTIED = ("gemma", "llama", "llama, biases", "llama, no groups", "mistral", "phi3", "qwen2", "qwen3")
WIDTH = 32
NORM = "model.layers.1.input_layernorm.weight"


def untied(name: str = "llama", seed: int = 0, **changes: Any) -> Any:
    return decoder(name, seed, tie_word_embeddings=False, **changes)


def turning(rotation: Tensor) -> Callable[[], Turning]:
    return lambda: Turning(Turn(rotation, 1.7), {"why": "planted"})


def none_wanted() -> Turning:
    raise AssertionError("the models should have been refused before")


def loaded(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder)


def strangers(root: Path, name: str = "llama", **changes: Any) -> tuple[Checkpoint, Checkpoint]:
    """Two models that have nothing in common: the expert and the reference."""
    models = untied(name, 1, **changes), untied(name, 2, **changes)
    return checkpoint(models[0], root / "expert", "EXPERT"), checkpoint(models[1], root / "reference", "REFERENCE")


@pytest.mark.parametrize("name", UNTIED)
def test_a_planted_rotation_with_shuffled_units_is_undone(tmp_path: Path, name: str) -> None:
    model, rotation = untied(name), rotation_of(WIDTH, 3)
    other = rotated(model, rotation, offset=offset(name))
    made = specification(other, "mlp", "attention")
    planted = random_orders(made)
    other.load_state_dict({each: permute(made, planted, each, tensor) for each, tensor in state(other).items()})
    reference, expert = checkpoint(model, tmp_path / "reference"), checkpoint(other, tmp_path / "expert")
    align_rotated(expert, reference, tmp_path / "aligned", turning(rotation))
    found, wanted = load_file(tmp_path / "aligned" / SINGLE), state(model)
    for each, tensor in wanted.items():
        torch.testing.assert_close(found[each], tensor, rtol=1e-4, atol=1e-5)
    mean = {each: (tensor + found[each]) / 2 for each, tensor in wanted.items()}
    torch.testing.assert_close(logits(untied(name), mean), logits(model), rtol=1e-3, atol=1e-3)
    record = json.loads((tmp_path / "aligned" / RECORD).read_text())
    assert record["similarity"]["after"] == pytest.approx(1.0) and record["similarity"]["before"] < 0.9


@pytest.mark.parametrize("name", UNTIED)
def test_any_rotation_leaves_the_function_as_it_is_and_gives_the_reference_s_norms(tmp_path: Path, name: str) -> None:
    expert, reference = strangers(tmp_path, name)
    before = logits(loaded(expert.path))
    align_rotated(expert, reference, tmp_path / "aligned", turning(rotation_of(WIDTH, 5)))
    torch.testing.assert_close(logits(loaded(tmp_path / "aligned")), before, rtol=1e-4, atol=1e-4)
    found = Checkpoint(tmp_path / "aligned")
    norms = [each for each in found.names if each.endswith("norm.weight") and "self_attn" not in each]
    assert len(norms) == 7 and all(torch.equal(found.tensor(each), reference.tensor(each)) for each in norms)
    embedding = "model.embed_tokens.weight"
    assert not torch.allclose(found.tensor(embedding), expert.tensor(embedding), atol=0.01)


def test_the_small_number_under_the_root_counts_as_much_as_before(tmp_path: Path) -> None:
    expert, reference = strangers(tmp_path, rms_norm_eps=0.5)
    align_rotated(expert, reference, tmp_path / "aligned", turning(rotation_of(WIDTH, 5)))
    torch.testing.assert_close(logits(loaded(tmp_path / "aligned")), logits(loaded(expert.path)), rtol=1e-4, atol=1e-4)


def test_only_the_stream_is_rotated_where_nothing_else_is_asked_for(tmp_path: Path) -> None:
    expert, reference = strangers(tmp_path)
    align_rotated(expert, reference, tmp_path / "aligned", turning(rotation_of(WIDTH)), parts=("residual",))
    record = json.loads((tmp_path / "aligned" / RECORD).read_text())
    assert record["permutations"] == {} and record["parts"] == ["residual"] and "by" not in record


def test_what_stands_beside_the_weights(tmp_path: Path) -> None:
    models = untied(seed=1), untied(seed=2)
    expert = checkpoint(models[0], tmp_path / "expert", size="20KB")
    reference = checkpoint(models[1], tmp_path / "reference")
    (expert.path / "tokenizer.json").write_text('{"a": 1}')
    match = align_rotated(expert, reference, tmp_path / "aligned", turning(rotation_of(WIDTH)), parts=("mlp",))
    record = json.loads((tmp_path / "aligned" / RECORD).read_text())
    similarity, orders = record.pop("similarity"), record.pop("permutations")
    assert -1 < similarity["before"] < 1 and sorted(orders) == [f"layers.{i}.mlp" for i in range(3)]
    assert record == {
        "schema": SCHEMA,
        "expert": str(expert.path),
        "reference": str(reference.path),
        "parts": ["mlp", "residual"],
        "residual": "rotated",
        "why": "planted",
        "raised": {},
        "by": "weights",
        "seed": 0,
        "sweeps": match.sweeps,
        "gain": match.gain,
    }
    found = Checkpoint(tmp_path / "aligned")
    assert list(found.shards) == list(expert.shards) and (tmp_path / "aligned" / INDEX).exists()
    assert found.config == expert.config and (tmp_path / "aligned" / "tokenizer.json").read_text() == '{"a": 1}'
    assert all(path.is_file() for path in (tmp_path / "aligned").iterdir())


def test_an_order_that_is_given_is_written_as_it_is_and_rounds_nothing(tmp_path: Path) -> None:
    expert, reference = strangers(tmp_path, dtype=torch.bfloat16)
    turn = turning(rotation_of(WIDTH))
    given = random_orders(specification(untied(), "mlp", "attention"), 5)
    align_rotated(expert, reference, tmp_path / "plain", turn, parts=("residual",))
    align_rotated(expert, reference, tmp_path / "given", turn, find=lambda *_: (Match(given, 0, 0.0), {"by": "chance"}))
    plain, found = Checkpoint(tmp_path / "plain"), Checkpoint(tmp_path / "given")
    for name in found.names:
        assert found.tensor(name).dtype == torch.bfloat16
        wanted = permute(specification(untied(), "mlp", "attention"), given, name, plain.tensor(name))
        assert torch.equal(found.tensor(name), wanted), name


@pytest.mark.parametrize(("name", "dtype"), [("llama", torch.float32), ("gemma", torch.bfloat16)])
def test_scales_near_nothing_are_raised_and_the_function_stays(tmp_path: Path, name: str, dtype: torch.dtype) -> None:
    expert, _ = strangers(tmp_path, name)
    other = untied(name, 2)
    weight = other.state_dict()[NORM]
    weight[:3] = torch.tensor([0.0, -1e-7, 1e-7]) - offset(name)
    reference = checkpoint(other, tmp_path / "small")
    stored = checkpoint(loaded(expert.path).to(dtype), tmp_path / "stored")
    align_rotated(stored, reference, tmp_path / "aligned", turning(rotation_of(WIDTH)))
    assert json.loads((tmp_path / "aligned" / RECORD).read_text())["raised"] == {NORM: 3}
    found = Checkpoint(tmp_path / "aligned").tensor(NORM).float() + offset(name)
    least = LEAST * (weight + offset(name)).abs().mean()
    assert (found[:3].abs() > 0.9 * least).all() and found[0] > 0 and found[2] > 0
    assert torch.equal(found[3:] - offset(name), weight[3:].to(dtype).float())
    answers = logits(loaded(tmp_path / "aligned").float())
    tolerance = 1e-3 if dtype == torch.float32 else 0.1 * float(answers.std())
    difference = answers - logits(loaded(stored.path).float())
    assert float(difference.square().mean().sqrt()) < tolerance


def test_a_norm_of_nothing_but_zeros_is_refused(tmp_path: Path) -> None:
    expert, _ = strangers(tmp_path)
    other = untied(seed=2)
    other.state_dict()[NORM].zero_()
    reference = checkpoint(other, tmp_path / "zero", "REFERENCE")
    with pytest.raises(InvalidModel, match=f"REFERENCE: .*scales everything by 0 in {NORM}"):
        align_rotated(expert, reference, tmp_path / "aligned", turning(rotation_of(WIDTH)))
    assert not (tmp_path / "aligned").exists()


def test_numbers_that_the_dtype_cannot_hold_are_refused(tmp_path: Path) -> None:
    model, other = untied(seed=1).half(), untied(seed=2)
    model.state_dict()[NORM].fill_(60000.0)
    other.state_dict()[NORM].fill_(0.01)
    expert, reference = checkpoint(model, tmp_path / "expert"), checkpoint(other, tmp_path / "reference")
    with pytest.raises(InvalidModel, match=r"layers.1.self_attn.*float16.*save the model as float32"):
        align_rotated(expert, reference, tmp_path / "aligned", turning(rotation_of(WIDTH)))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["expert", "reference"]


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        ("llama", {"hidden_size": 16, "head_dim": 8}, "EXPERT: hidden_size: 16 is 32"),
        ("llama", {"vocab_size": 67}, "EXPERT: vocab_size: 67 is 61"),
        ("qwen2", {}, "EXPERT: model_type: 'qwen2' is 'llama'"),
        ("llama", {"intermediate_size": 40}, "down_proj"),
        ("llama", {"num_hidden_layers": 2}, "is missing here"),
        ("llama, biases", {}, "and missing in the reference"),
        ("llama, tied", {}, "a head tied to its embedding.*tie_word_embeddings false"),
    ],
)
def test_models_that_do_not_fit_are_refused(tmp_path: Path, name: str, changes: dict[str, Any], said: str) -> None:
    reference = checkpoint(decoder(), tmp_path / "reference", "REFERENCE")
    expert = checkpoint(decoder(name, **changes), tmp_path / "expert", "EXPERT")
    with pytest.raises(InvalidModel, match=said) as error:
        align_rotated(expert, reference, tmp_path / "aligned", none_wanted)
    assert error.value.key.startswith("EXPERT")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["expert", "reference"]


@pytest.mark.parametrize("name", ["gemma2", "gemma3", "olmo2"])
def test_streams_that_cannot_be_turned_are_refused(tmp_path: Path, name: str) -> None:
    made = checkpoint(decoder(name), tmp_path / "model")
    with pytest.raises(InvalidModel, match="is none of the models whose residual stream can be turned"):
        align_rotated(made, made, tmp_path / "aligned", none_wanted)


def test_a_tied_reference_a_model_that_is_not_finite_and_other_mistakes_are_refused(tmp_path: Path) -> None:
    expert, reference = strangers(tmp_path)
    tied = checkpoint(decoder("llama, tied"), tmp_path / "tied", "TIED")
    with pytest.raises(InvalidModel, match=r"TIED: .*a head tied"):
        align_rotated(expert, tied, tmp_path / "aligned", none_wanted)
    broken = untied()
    broken.model.layers[2].mlp.up_proj.weight.data[3, 4] = torch.nan
    with pytest.raises(InvalidModel, match=r"NaN or infinity in tensor model.layers.2.mlp.up_proj.weight"):
        align_rotated(checkpoint(broken, tmp_path / "broken"), reference, tmp_path / "aligned", none_wanted)
    with pytest.raises(InvalidRecipe, match="is no part"):
        align_rotated(expert, reference, tmp_path / "aligned", none_wanted, parts=("norms",))
    assert not (tmp_path / "aligned").exists()
    (tmp_path / "aligned").mkdir()
    with pytest.raises(OutputError, match="exists"):
        align_rotated(expert, reference, tmp_path / "aligned", none_wanted)
