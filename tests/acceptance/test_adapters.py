"""A study of LoRAs by a method that looks at data, from YAML to a LoRA and a full model that score the same."""

import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.acceptance.command import mergesearch, output
from zoo.adapters import train_adapters
from zoo.make import Zoo

peft: Any = pytest.importorskip("peft")
pytestmark = [pytest.mark.acceptance, pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing")]


@pytest.fixture(scope="module")
def adapted(nano: Zoo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A zoo whose experts are adapters."""
    folder: Path = tmp_path_factory.mktemp("adapted") / "zoo"
    shutil.copytree(nano.folder, folder, ignore=shutil.ignore_patterns("experts"))
    (folder / "experts").mkdir()
    train_adapters(folder, ("rev", "srt"), rank=4)
    return folder


@torch.no_grad()
def said(model: Any, folder: Path) -> torch.Tensor:
    """The model's logits on a few words."""
    ids = AutoTokenizer.from_pretrained(folder)("rev abc", return_tensors="pt").input_ids
    found: torch.Tensor = model.eval()(input_ids=ids).logits
    return found


def test_loras_are_searched_and_exported_as_a_lora_and_as_a_model(adapted: Path, tmp_path: Path) -> None:
    content = {
        "schema": "mergesearch/study/v1",
        "name": "adapters",
        "models": {"base": str(adapted / "base"), "experts": [str(adapted / "adapters" / n) for n in ("rev", "srt")]},
        "space": {"methods": ["regmean", "task_arithmetic"], "fixed": {"regmean.documents": 8}},
        "search": {"trials": 8, "parallel": 2},
        "evaluation": {"tasks": ["zoo_rev", "zoo_srt"], "include_path": str(adapted / "tasks"), "documents": 20},
    }
    study, home = tmp_path / "study.yaml", tmp_path / "home"
    study.write_text(yaml.safe_dump(content))
    mergesearch("run", study, "--home", home, "--to", tmp_path / "full")
    trials = output("trials", "adapters", "--home", home)
    assert all(trial["state"] in ("complete", "pruned") for trial in trials)
    learned = next(t["number"] for t in trials if t["origin"] == "default:regmean")
    export = ("export", "adapters", "--trial", str(learned), "--home", home)
    mergesearch(*export, "--to", tmp_path / "whole")
    for form in ("lora", "bitdelta"):
        mergesearch(*export, "--to", tmp_path / form, "--as", form)
    base = AutoModelForCausalLM.from_pretrained(adapted / "base")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lora = peft.PeftModel.from_pretrained(base, tmp_path / "lora")
    full = AutoModelForCausalLM.from_pretrained(tmp_path / "whole")
    torch.testing.assert_close(said(lora, adapted / "base"), said(full, adapted / "base"), rtol=1e-4, atol=1e-4)
    assert "peft=." in (tmp_path / "lora" / "README.md").read_text()
    # what the method looked at is measured again where it is gone
    for folder in adapted.rglob(".mergesearch"):
        shutil.rmtree(folder)
    mergesearch(*export, "--to", tmp_path / "again")
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "again"))
    assert all(torch.equal(one[name], two[name]) for name in one)
    mergesearch("merge", tmp_path / "again" / "recipe.json", "--to", tmp_path / "merged")
    assert list(adapted.rglob(".mergesearch/inputs-*/artefact.json"))


def test_what_a_study_s_methods_look_at_is_measured_beforehand(adapted: Path, tmp_path: Path) -> None:
    content = {
        "schema": "mergesearch/study/v1",
        "name": "measured",
        "models": {"base": str(adapted / "base"), "experts": [str(adapted / "adapters" / n) for n in ("rev", "srt")]},
        "space": {"methods": ["fisher"], "fixed": {"fisher.documents": 4}},
        "evaluation": {"tasks": ["zoo_rev"], "include_path": str(adapted / "tasks"), "documents": 20},
    }
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(content))
    first = output("measure", tmp_path / "study.yaml")
    assert [(row["kind"], row["expert"]) for row in first] == [
        ("likelihoods", "rev"),
        ("likelihoods", "srt"),
        ("fisher", "rev"),
        ("fisher", "srt"),
    ]
    assert all(Path(row["folder"]).is_dir() and row["bytes"] > 0 and row["seconds"] >= 0 for row in first)
    again = mergesearch("measure", tmp_path / "study.yaml")
    assert "measuring" not in again.stderr
    content["space"] = {"methods": ["linear"]}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(content))
    refused = mergesearch("measure", tmp_path / "study.yaml", check=False)
    assert refused.returncode == 2 and "space.methods: 'linear' look at no data" in refused.stderr
