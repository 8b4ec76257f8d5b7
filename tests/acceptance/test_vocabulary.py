"""A study of experts whose vocabularies differ, from YAML to an export that transformers loads."""

from pathlib import Path

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.acceptance.command import mergesearch, output
from zoo.make import Zoo

pytestmark = pytest.mark.acceptance
TOOL = "<|tool|>"


def with_token(source: Path, to: Path) -> Path:
    """The expert with a token of its own, as fine-tuners add them."""
    words, model = AutoTokenizer.from_pretrained(source), AutoModelForCausalLM.from_pretrained(source)
    words.add_special_tokens({"additional_special_tokens": [TOOL]})
    torch.manual_seed(0)
    model.resize_token_embeddings(len(words))
    model.save_pretrained(to)
    words.save_pretrained(to)
    return to


@pytest.mark.parametrize("choice", ["union", "base"])
def test_a_token_that_one_expert_added_is_in_the_winner_or_not_as_asked(nano: Zoo, tmp_path: Path, choice: str) -> None:
    tools = with_token(nano.experts["add"], tmp_path / "tools")
    content = {
        "schema": "mergesearch/study/v1",
        "name": "vocabulary",
        "models": {
            "base": str(nano.base),
            "experts": [str(tools), str(nano.experts["dic"])],
            "tokenizer": choice,
        },
        "search": {"trials": 8, "parallel": 1},
        "evaluation": {"tasks": ["zoo_dic"], "include_path": str(nano.tasks), "documents": 20},
    }
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(content))
    home, out = tmp_path / "home", tmp_path / "out"
    mergesearch("run", tmp_path / "study.yaml", "--home", home, "--to", out)
    assert all(trial["state"] == "complete" for trial in output("trials", "vocabulary", "--home", home))
    words, model = AutoTokenizer.from_pretrained(out), AutoModelForCausalLM.from_pretrained(out)
    rows = AutoModelForCausalLM.from_pretrained(nano.base).get_input_embeddings().weight.shape[0]
    has_it = choice != "base"
    assert (TOOL in words.get_vocab()) == has_it
    assert model.get_input_embeddings().weight.shape[0] == model.config.vocab_size >= rows
    assert model.config.vocab_size > words.get_vocab().get(TOOL, 0)
    mergesearch("merge", out / "recipe.json", "--to", tmp_path / "again")
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (out / "model.safetensors").read_bytes()
