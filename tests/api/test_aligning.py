"""`mergesearch align`: a model in another one's order computes what it did, and averages with it again."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from api.cli import app
from merging.checkpoint import SINGLE
from merging.errors import InvalidInput
from tests.merging.factories import fine_tuned, tiny_llama


def run(*arguments: str | Path) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def shuffled(model: Any) -> Any:
    """The same function with the hidden units of every MLP in another order."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for layer in model.model.layers:
            order = torch.randperm(layer.mlp.up_proj.weight.shape[0], generator=generator)
            for rows in (layer.mlp.up_proj, layer.mlp.gate_proj):
                rows.weight.copy_(rows.weight[order])
            layer.mlp.down_proj.weight.copy_(layer.mlp.down_proj.weight[:, order])
    return model


def test_a_shuffled_fine_tune_comes_back_into_the_base_s_order(tmp_path: Path) -> None:
    base = tiny_llama()
    tuned = fine_tuned(base, 1)
    base.save_pretrained(tmp_path / "base")
    tuned.save_pretrained(tmp_path / "tuned")
    shuffled(tuned).save_pretrained(tmp_path / "shuffled")
    done = run("align", tmp_path / "shuffled", "--like", tmp_path / "base", "--to", tmp_path / "aligned")
    assert done.exit_code == 0 and "cosine" in done.stderr
    record = json.loads((tmp_path / "aligned" / "alignment.json").read_text())
    assert record["similarity"]["after"] > record["similarity"]["before"] + 0.3 and record["parts"] == ["mlp"]
    found, wanted = (load_file(tmp_path / name / SINGLE) for name in ("aligned", "tuned"))
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "aligned").config.num_hidden_layers == 4


@pytest.mark.parametrize(("parts", "said"), [(("heads",), "heads"), (("mlp", "norms"), "norms")])
def test_an_unknown_part_is_refused(tmp_path: Path, parts: tuple[str, ...], said: str) -> None:
    tiny_llama().save_pretrained(tmp_path / "base")
    given = [word for part in parts for word in ("--part", part)]
    done = run("align", tmp_path / "base", "--like", tmp_path / "base", "--to", tmp_path / "out", *given)
    assert isinstance(done.exception, InvalidInput) and said in str(done.exception)
    assert not (tmp_path / "out").exists()
