"""Adapters of a zoo: the same bits for the same seed, all or none, and each knows its skill better than the base."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from torch.nn import functional
from transformers import LlamaForCausalLM

import zoo
from zoo.adapters import train_adapters
from zoo.skills import SKILLS, make_dictionary
from zoo.tokenizer import BOS, VOCABULARY, encode

peft: Any = pytest.importorskip("peft")
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing")
NAMES = ("rev", "srt")


@pytest.fixture(scope="module")
def trained(nano: zoo.Zoo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A zoo with two adapters; tests must not change it."""
    folder: Path = tmp_path_factory.mktemp("adapters") / "zoo"
    shutil.copytree(nano.folder, folder)
    train_adapters(folder, NAMES, rank=4)
    return folder


def weights(folder: Path) -> dict[str, bytes]:
    return {name: (folder / "adapters" / name / "adapter_model.safetensors").read_bytes() for name in NAMES}


def test_equal_zoos_give_equal_bits_and_torch_is_as_it_was(nano: zoo.Zoo, trained: Path, tmp_path: Path) -> None:
    shutil.copytree(nano.folder, tmp_path / "zoo")
    torch.manual_seed(1)
    state, told = torch.random.get_rng_state(), []
    paths = train_adapters(tmp_path / "zoo", NAMES, 4, lambda stage, step, steps: told.append((stage, step, steps)))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert weights(tmp_path / "zoo") == weights(trained) and len(set(weights(trained).values())) == 2
    assert paths == {name: tmp_path / "zoo" / "adapters" / name for name in NAMES}
    assert told[0] == ("adapter rev", 1, 16) and told[-1] == ("adapter srt", 16, 16)


def loss(model: Any, skill: str) -> float:
    """The mean loss of wanted answers."""
    rng, dictionary = Random("test"), make_dictionary(100, 0)
    losses = []
    for _ in range(40):
        example = SKILLS[skill].train(rng, dictionary)
        prompt, answer = [VOCABULARY[BOS], *encode(example.prompt)], encode(example.right)
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
        losses.append(float(functional.cross_entropy(logits, torch.tensor(answer))))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("name", NAMES)
def test_an_adapter_knows_its_skill_better_than_the_base(name: str, trained: Path) -> None:
    base = LlamaForCausalLM.from_pretrained(trained / "base").eval()
    before = loss(base, name)
    model = peft.PeftModel.from_pretrained(base, trained / "adapters" / name).eval()
    assert loss(model, name) < before - 0.05
    config = json.loads((trained / "adapters" / name / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["peft_type"]) == (4, 8, "LORA")


def test_adapters_are_never_written_over(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(FileExistsError, match="remove it to train again"):
        train_adapters(trained, NAMES)
    with pytest.raises(FileNotFoundError):
        train_adapters(tmp_path, NAMES)


def test_a_training_that_dies_leaves_nothing_that_looks_finished(nano: zoo.Zoo, tmp_path: Path) -> None:
    shutil.copytree(nano.folder, tmp_path / "zoo")

    def die(stage: str, step: int, steps: int) -> None:
        if stage == "adapter srt":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_adapters(tmp_path / "zoo", NAMES, 4, die)
    assert not (tmp_path / "zoo" / "adapters").exists()
    assert set(train_adapters(tmp_path / "zoo", NAMES[:1], 4)) == {"rev"}
    assert [path.name for path in (tmp_path / "zoo" / "adapters").iterdir()] == ["rev"]


def test_importing_it_loads_neither_torch_nor_peft() -> None:
    code = "import sys, zoo.adapters; print({'torch', 'peft', 'transformers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
