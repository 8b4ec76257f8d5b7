"""A model of another start in the coordinates of the zoo's: it computes what it did, and averages far better."""

import json
from pathlib import Path
from random import Random

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from tests.acceptance.command import mergesearch
from zoo.make import Zoo
from zoo.presets import preset
from zoo.skills import SKILLS, make_dictionary
from zoo.strangers import train_stranger

pytestmark = pytest.mark.acceptance


@torch.no_grad()
def logits(folder: Path) -> Tensor:
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokens = torch.randint(3, model.config.vocab_size, (4, 32), generator=torch.Generator().manual_seed(0))
    answer: Tensor = model(tokens).logits
    return answer


def test_a_stranger_is_rotated_into_the_base_s_coordinates(nano: Zoo, tmp_path: Path) -> None:
    stranger, aligned = train_stranger(nano.folder, "srt", 1), tmp_path / "aligned"
    dictionary, rng = make_dictionary(preset(nano.preset).words, nano.seed), Random(0)
    rows = [skill.train(rng, dictionary) for skill in SKILLS.values() for _ in range(40)]
    texts = tmp_path / "texts.jsonl"
    texts.write_text("".join(json.dumps({"text": row.prompt + row.right}) + "\n" for row in rows))
    mergesearch("align", stranger, "--like", nano.base, "--texts", texts, "--rotate", "--to", aligned)
    torch.testing.assert_close(logits(aligned), logits(stranger), rtol=1e-4, atol=1e-4)
    record = json.loads((aligned / "alignment.json").read_text())
    assert record["residual"] == "rotated" and record["stream"]["after"] > record["stream"]["before"]
    found, base = (load_file(folder / "model.safetensors") for folder in (aligned, nano.base))
    norms = [name for name in base if name.endswith("norm.weight")]
    assert norms and all(torch.equal(found[name], base[name]) for name in norms)
