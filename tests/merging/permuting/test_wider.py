"""Wider checkpoints: ordinary folders that compute what was promised of them, or none at all."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.testing import assert_close
from transformers import AutoModelForCausalLM

from merging.checkpoint import INDEX, SINGLE, Checkpoint
from merging.errors import InvalidInput, InvalidModel, InvalidRecipe, OutputError
from merging.permuting.wider import RECORD, widen
from tests.merging.factories import tiny_llama
from tests.merging.permuting.decoders import decoder, logits, state

UNITS = 44
FAMILIES = ["llama", "llama, biases", "llama, tied", "qwen3", "phi3"]


def written(root: Path, *models: Any, size: str = "1GB") -> list[Checkpoint]:
    """The models as folders 0, 1 …"""
    found = []
    for number, model in enumerate(models):
        model.save_pretrained(root / str(number), max_shard_size=size)
        (root / str(number) / "tokenizer.json").write_text("{}")
        found.append(Checkpoint(root / str(number), f"experts[{number}]"))
    return found


def reading(model: Any, of_mlp: Any) -> Any:
    """The model with the MLPs of another: everything else is its own."""
    mixed = {name: (state(of_mlp) if ".mlp." in name else state(model))[name] for name in state(model)}
    model.load_state_dict(mixed, strict=False)
    return model


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("ratio", [0.0, 0.3, 1.0])
def test_the_folder_is_a_model_of_that_width(tmp_path: Path, family: str, ratio: float) -> None:
    experts = written(tmp_path, decoder(family), decoder(family, seed=1), size="20KB")
    done = widen(experts, tmp_path / "wide", ratio=ratio, weights=[1.0, 3.0])
    units = UNITS + round(ratio * UNITS)
    assert (done.before, done.after) == (UNITS, units)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "wide")
    assert model.config.intermediate_size == units and (tmp_path / "wide" / INDEX).exists()
    assert (tmp_path / "wide" / "tokenizer.json").read_text() == "{}"
    assert logits(model).isfinite().all()
    record = json.loads((tmp_path / "wide" / RECORD).read_text())
    assert record["weights"] == [0.25, 0.75] and record["intermediate_size"] == {"before": UNITS, "after": units}
    assert record["experts"] == [str(each.path) for each in experts] and len(record["similarity"]) == 3


@pytest.mark.parametrize("family", FAMILIES)
def test_with_nothing_apart_it_is_the_average(tmp_path: Path, family: str) -> None:
    models = decoder(family), decoder(family, seed=1)
    widen(written(tmp_path, *models), tmp_path / "wide", ratio=0.0, weights=[1.0, 3.0])
    for name, tensor in load_file(tmp_path / "wide" / SINGLE).items():
        first, second = (state(model)[name] for model in models)
        assert_close(tensor, 0.25 * first + 0.75 * second)


@pytest.mark.parametrize("family", FAMILIES)
def test_with_all_apart_the_mlps_compute_the_mean_of_the_functions(tmp_path: Path, family: str) -> None:
    models = decoder(family), reading(decoder(family), decoder(family, seed=1))
    widen(written(tmp_path, *models), tmp_path / "wide", ratio=1.0, weights=[1.0, 3.0])
    wide = AutoModelForCausalLM.from_pretrained(tmp_path / "wide")
    x = torch.randn(5, 32, generator=torch.Generator().manual_seed(3))
    for mine, first, second in zip(wide.model.layers, *(model.model.layers for model in models), strict=True):
        assert_close(mine.mlp(x), 0.25 * first.mlp(x) + 0.75 * second.mlp(x), rtol=1e-4, atol=1e-4)


def test_equal_models_come_back_at_any_width(tmp_path: Path) -> None:
    model = decoder()
    widen(written(tmp_path, model, decoder(), decoder()), tmp_path / "wide", ratio=0.5)
    wide = AutoModelForCausalLM.from_pretrained(tmp_path / "wide")
    assert wide.config.intermediate_size == UNITS + 2 * UNITS // 2
    assert_close(logits(wide), logits(model), rtol=1e-4, atol=1e-4)


def test_the_units_that_differ_are_those_kept_apart(tmp_path: Path) -> None:
    model, other = decoder(), decoder()
    tensors: dict[str, Tensor] = state(other)
    odd = [3, 17, 40]
    for name in tensors:
        if "up_proj" in name:
            tensors[name][odd] *= -1
        if "down_proj" in name:
            tensors[name][:, odd] *= 2
    other.load_state_dict(tensors)
    widen(written(tmp_path, model, other), tmp_path / "wide", ratio=3 / UNITS)
    wide = AutoModelForCausalLM.from_pretrained(tmp_path / "wide")
    x = torch.randn(5, 32, generator=torch.Generator().manual_seed(3))
    for mine, first, second in zip(wide.model.layers, model.model.layers, other.model.layers, strict=True):
        assert_close(mine.mlp(x), (first.mlp(x) + second.mlp(x)) / 2, rtol=1e-4, atol=1e-4)


def test_what_cannot_work_is_refused_with_the_reason(tmp_path: Path) -> None:
    first, second = written(tmp_path, decoder(), decoder(seed=1))
    to = tmp_path / "wide"
    for ratio in (-0.1, 1.5, float("nan")):
        with pytest.raises(InvalidRecipe, match=r"ratio: .* is no share of the units; use a number from 0"):
            widen([first, second], to, ratio=ratio)
    with pytest.raises(InvalidRecipe, match="experts: 1 are too few"):
        widen([first], to, ratio=0.5)
    with pytest.raises(InvalidRecipe, match="weight: 3 are not as many as the experts, 2"):
        widen([first, second], to, ratio=0.5, weights=[1, 1, 1])
    for weight in (-1.0, float("nan"), float("inf")):
        with pytest.raises(InvalidRecipe, match=r"weight: .* is no weight"):
            widen([first, second], to, ratio=0.5, weights=[weight, 1])
    with pytest.raises(InvalidRecipe, match="is the weight of every expert"):
        widen([first, second], to, ratio=0.5, weights=[0, 0])
    (first.path / "more").mkdir()
    with pytest.raises(OutputError, match="exists"):
        widen([first, second], first.path, ratio=0.5)
    assert not to.exists()


def unlike(root: Path, change: str) -> list[Checkpoint]:
    """Two models that cannot be merged."""
    if change == "shape":
        return written(root, decoder(), decoder(hidden_size=64))
    if change == "name":
        return written(root, decoder(), decoder("llama, biases"))
    if change == "size":
        experts = written(root, decoder(), decoder())
        config = json.loads((root / "0" / "config.json").read_text())
        (root / "0" / "config.json").write_text(json.dumps(config | {"intermediate_size": 99}))
        return [Checkpoint(root / "0", "experts[0]"), experts[1]]
    broken = decoder(seed=1)
    broken.state_dict()["model.norm.weight" if change == "norm" else "model.layers.2.mlp.up_proj.weight"][3] = torch.nan
    return written(root, decoder(), broken)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("shape", "experts\\[1\\]: .* is of shape .* here and of shape .* in the first expert"),
        ("name", "experts\\[1\\]: .*bias.* is of shape .* here and missing in the first expert"),
        ("size", "experts\\[0\\]: intermediate_size: 99 is not the size of its MLPs \\(44\\)"),
        ("norm", "experts\\[1\\]: .* has NaN or infinity in tensor model.norm.weight"),
        ("mlp", "experts\\[1\\]: .* has NaN or infinity in tensor model.layers.2.mlp.up_proj.weight"),
    ],
)
def test_models_that_do_not_go_together_leave_nothing(tmp_path: Path, change: str, said: str) -> None:
    experts = unlike(tmp_path, change)
    with pytest.raises(InvalidModel, match=said):
        widen(experts, tmp_path / "wide", ratio=0.5)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1"]


def test_a_model_that_is_no_decoder_is_refused(tmp_path: Path) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config(vocab_size=61, n_embd=32, n_layer=1, n_head=2))
    with pytest.raises(InvalidInput, match="not understood"):
        widen(written(tmp_path, model, model), tmp_path / "wide", ratio=0.5)


def test_dtypes_are_the_first_expert_s(tmp_path: Path) -> None:
    experts = written(tmp_path, tiny_llama(dtype=torch.bfloat16), tiny_llama(1))
    widen(experts, tmp_path / "wide", ratio=0.25)
    found = load_file(tmp_path / "wide" / SINGLE)
    assert {tensor.dtype for tensor in found.values()} == {torch.bfloat16}
