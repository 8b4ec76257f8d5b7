"""Whatever is wrong with a study is said in one message with key, value and remedy, and nothing is left behind."""

import json
import shutil
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from api.run import run_file
from merging.errors import InvalidInput
from tests.acceptance.command import mergesearch
from zoo.make import Zoo
from zoo.study import write_study


@dataclass
class Case:
    """A study file in a folder of its own, with models that may be spoilt."""

    folder: Path
    path: Path
    content: dict[str, Any]
    to: Path
    devices: tuple[str, ...] = ()

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def expert(self) -> Path:
        return self.folder / "experts" / "add"

    def spoil(self, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
        """Change the tensors of the first expert."""
        file = self.expert / "model.safetensors"
        tensors = load_file(file)
        change(tensors)
        save_file(tensors, file, {"format": "pt"})

    def run(self) -> InvalidInput:
        """Run it; the refusal."""
        self.path.write_text(yaml.safe_dump(self.content))
        before = sorted(self.folder.rglob("*"))
        with pytest.raises(InvalidInput) as caught:
            run_file(self.path, self.to, export=True, devices=self.devices, home=self.home, as_json=False)
        assert sorted(self.folder.rglob("*")) == before, "something was left behind"
        return caught.value


@pytest.fixture
def case(nano: Zoo, tmp_path: Path) -> Case:
    shutil.copytree(nano.experts["add"], tmp_path / "experts" / "add")
    path = write_study(nano, tmp_path / "study.yaml", name="bad", search={"trials": 8}, evaluation={"documents": 20})
    content = yaml.safe_load(path.read_text())
    content["models"]["experts"][0]["path"] = "experts/add"
    return Case(tmp_path, path, content, tmp_path / "winner")


def set_key(*keys: Any, value: Any) -> Callable[[Case], None]:
    def change(case: Case) -> None:
        part = case.content
        for key in keys[:-1]:
            part = part[key]
        part[keys[-1]] = value

    return change


def missing_model(case: Case) -> None:
    shutil.rmtree(case.expert)


def other_shape(case: Case) -> None:
    case.spoil(lambda tensors: tensors.update({"model.norm.weight": torch.ones(3)}))


def not_a_number(case: Case) -> None:
    case.spoil(lambda tensors: tensors["lm_head.weight"].view(-1)[7].fill_(float("nan")))


def truncated(case: Case) -> None:
    file = case.expert / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def pickled(case: Case) -> None:
    (case.expert / "model.safetensors").unlink()
    torch.save({}, case.expert / "pytorch_model.bin")


def nonsense_header(case: Case) -> None:
    (case.expert / "model.safetensors").write_bytes(struct.pack("<Q", 5) + b"nonsense")


def adapter(case: Case) -> None:
    (case.expert / "model.safetensors").unlink()
    (case.expert / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))


def no_tokenizer(case: Case) -> None:
    base = case.folder / "base"
    shutil.copytree(case.folder / case.content["models"]["base"], base)
    for file in base.glob("tokenizer*"):
        file.unlink()
    case.content["models"]["base"] = str(base)


def output_exists(case: Case) -> None:
    case.to.mkdir()


def output_unwritable(case: Case) -> None:
    (case.folder / "file").touch()
    case.to = case.folder / "file" / "winner"


def no_such_device(case: Case) -> None:
    case.devices = ("cuda:99",)


BAD: list[tuple[Callable[[Case], None], list[str]]] = [
    (set_key("serch", value={}), ["serch", "unknown key", "search"]),
    (set_key("space", "methods", value=["tis"]), ["space.methods[0]", "'tis'", "ties"]),
    (set_key("space", "layers", value=3), ["space.layers", "3", "each"]),
    (set_key("search", "trials", value=0), ["search.trials", "0"]),
    (set_key("search", "trials", value=2), ["search.trials", "2", "use 5 or more"]),
    (set_key("evaluation", "tasks", value=[]), ["evaluation.tasks", "at least one"]),
    (set_key("evaluation", "tasks", 0, "name", value="zoo_ad"), ["evaluation.tasks[0].name", "'zoo_ad'", "zoo_add"]),
    (set_key("evaluation", "tasks", 0, "metric", value="f9"), ["evaluation.tasks[0].metric", "'f9'", "exact_match"]),
    (set_key("evaluation", "include_path", value="nowhere"), ["evaluation.include_path", "nowhere"]),
    (missing_model, ["models.experts[0]", "experts/add", "folder"]),
    (other_shape, ["models.experts[0]", "model.norm.weight", "[3]", "fine-tunes of this base"]),
    (not_a_number, ["models.experts[0]", "lm_head.weight", "NaN"]),
    (truncated, ["models.experts[0]", "model.safetensors", "truncated"]),
    (nonsense_header, ["models.experts[0]", "model.safetensors"]),
    (pickled, ["models.experts[0]", "pickle", "safetensors"]),
    (adapter, ["models.experts[0]", "LoRA", "save_pretrained"]),
    (no_tokenizer, ["models.base", "AutoTokenizer"]),
    (no_such_device, ["device", "cuda:99", "cpu"]),
    (output_exists, ["to:", "winner", "exists", "--to"]),
    (output_unwritable, ["to:", "winner", "cannot be written", "--to"]),
]


@pytest.mark.parametrize(("spoil", "said"), BAD, ids=[" ".join(said[:2]) for _, said in BAD])
def test_it_is_refused_in_one_message_and_leaves_nothing(
    case: Case, spoil: Callable[[Case], None], said: list[str]
) -> None:
    spoil(case)
    message = str(case.run())
    assert "\n" not in message.strip()
    for part in said:
        assert part in message, message


@pytest.mark.acceptance
def test_the_command_line_says_it_on_one_line_and_exits_with_2(case: Case) -> None:
    not_a_number(case)
    case.path.write_text(yaml.safe_dump(case.content))
    refused = mergesearch("run", case.path, "--home", case.home, "--to", case.to, check=False)
    assert refused.returncode == 2
    assert refused.stdout == "" and len(refused.stderr.strip().splitlines()) == 1, refused.stderr
    assert "NaN" in refused.stderr
    unknown = mergesearch("status", "--home", case.home, check=False)
    assert unknown.returncode == 2 and "--home" in unknown.stderr and not case.home.exists()
