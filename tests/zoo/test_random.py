"""Random models: the size asked for, whole or sharded, the same for the same seed."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from zoo.random import build_random


@pytest.mark.parametrize("shards", [1, 3])
def test_models_load_and_have_about_the_size(tmp_path: Path, shards: int) -> None:
    built = build_random(tmp_path, 3e6, experts=2, layers=2, shards=shards)
    assert len(list(built.base.glob("*.safetensors"))) == shards
    assert built.parameters == pytest.approx(3e6, rel=0.3)
    states = []
    for folder in (built.base, *built.experts.values()):
        model = AutoModelForCausalLM.from_pretrained(folder)
        assert model.dtype == torch.bfloat16
        assert sum(parameter.numel() for parameter in model.parameters()) == built.parameters
        states.append(model.state_dict())
    deltas = [state["lm_head.weight"].float() - states[0]["lm_head.weight"].float() for state in states[1:]]
    assert all(0 < delta.std() < 0.004 for delta in deltas)
    assert not torch.equal(deltas[0], deltas[1])


def test_sharding_changes_no_tensor_and_leaves_no_old_file(tmp_path: Path) -> None:
    sharded = build_random(tmp_path / "models", 1e6, experts=1, dtype="float32", layers=1, shards=2)
    expected = {name: tensor for file in sharded.base.glob("*.safetensors") for name, tensor in load_file(file).items()}
    whole = build_random(tmp_path / "models", 1e6, experts=1, dtype="float32", layers=1)
    assert [file.name for file in whole.base.glob("*.safetensors*")] == ["model.safetensors"]
    found = load_file(whole.base / "model.safetensors")
    assert sorted(found) == sorted(expected)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in found.items())
