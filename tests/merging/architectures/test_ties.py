"""Tied tensors count once under whatever names a tool stored them; heads of their own stay."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from merging.checkpoint import SINGLE, Checkpoint
from merging.export import export
from merging.models import ModelSet
from tests.merging.architectures.conftest import Saved, save
from tests.merging.architectures.families import FAMILIES, Family, answers

KNOWN = {family.name: family for family in FAMILIES}
TIED = (
    "llama gemma2 qwen2 gpt_neox gpt2 opt bloom falcon mamba bert roberta distilbert modernbert electra t5 bart whisper"
)


def store_head(folder: Path, name: str, head: torch.Tensor, flag: bool) -> None:
    """Adds a head to a folder, and says in its config whether it is tied."""
    save_file(load_file(folder / SINGLE) | {name: head}, folder / SINGLE, {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    del config["scale_decoder_outputs"]  # published configs lack it: it follows the tie
    (folder / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": flag}))


@pytest.mark.parametrize("name", TIED.split())
def test_a_checkpoint_that_stores_every_alias_is_the_same_checkpoint(name: str, tmp_path: Path) -> None:
    family: Family = KNOWN[name]
    model = family.build(True)
    for folder in ("once", "twice"):
        model.save_pretrained(tmp_path / folder)
    tensors = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    save_file(tensors, tmp_path / "twice" / SINGLE, {"format": "pt"})
    once, twice = Checkpoint(tmp_path / "once"), Checkpoint(tmp_path / "twice")
    aliases = tensors.keys() - once.names
    assert aliases
    assert twice.tied.keys() == aliases
    assert twice.names == once.names
    assert twice.fingerprint() == once.fingerprint()


@pytest.mark.parametrize("flag", [True, False])  # what transformers writes today, and what T5 1.1 was published with
def test_t5_with_a_head_of_its_own_keeps_it(flag: bool, tmp_path: Path) -> None:
    saved: Saved = save(KNOWN["t5"], tmp_path)
    for seed, name in enumerate(("base", "x", "y")):
        generator = torch.Generator().manual_seed(seed)
        store_head(tmp_path / name, "lm_head.weight", torch.randn(50, 16, generator=generator), flag)
    models = ModelSet.open(tmp_path / "base", {name: tmp_path / name for name in "xy"})
    assert "lm_head.weight" in models.base.names
    export(saved.recipe("layer_swap", {"x": 0.0, "y": 1.0}), models, tmp_path / "out")
    merged, expert = (type(saved.base).from_pretrained(tmp_path / name).eval() for name in ("out", "y"))
    assert torch.equal(merged.lm_head.weight, Checkpoint(tmp_path / "y").tensor("lm_head.weight"))
    assert merged.config.scale_decoder_outputs == flag
    assert torch.equal(answers(merged), answers(expert))
