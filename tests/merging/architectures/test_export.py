"""Every architecture's merge is a checkpoint that transformers loads without a word, and computes what it should."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers.utils import logging as transformers_logging

from evaluation.live import live_tensors
from merging.export import export
from merging.resident import ResidentModel
from tests.merging.architectures.conftest import DTYPES, Saved, save
from tests.merging.architectures.families import FAMILIES, Family, answers

EACH_FAMILY = pytest.mark.parametrize("saved", FAMILIES, indirect=True, ids=lambda family: family.name)
HALVED = "llama qwen3 gemma2 phi3 gpt_neox gpt2 opt falcon mixtral gpt_oss deepseek_v3 mamba bert t5 whisper vit"
ONLY_X = {"x": 1.0, "y": 0.0}


@contextmanager
def words() -> Iterator[list[str]]:
    """What transformers warns of meanwhile."""
    said: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())

    listener = Listener(logging.WARNING)
    logger = transformers_logging.get_logger("transformers")
    logger.addHandler(listener)
    try:
        yield said
    finally:
        logger.removeHandler(listener)


def load(like: Any, folder: Path) -> Any:
    """The model in a folder; fails if it lacks a tensor, has one too many, or transformers says anything of either."""
    with words() as said:
        model, info = type(like).from_pretrained(folder, dtype="auto", output_loading_info=True)
    assert not any(info.values()), info
    assert not [line for line in said if "weight" in line or "checkpoint" in line], said
    return model.eval()


def same_tensors(left: Any, right: Any) -> bool:
    """Whether two models hold the same numbers, buffers too."""
    ours, theirs = left.state_dict(), right.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


@EACH_FAMILY
def test_a_merge_of_one_expert_is_that_expert(saved: Saved, tmp_path: Path) -> None:
    export(saved.recipe("task_arithmetic", ONLY_X), saved.models, tmp_path / "out")
    assert len(saved.models.base.shards) > 1
    merged, expert = load(saved.base, tmp_path / "out"), load(saved.base, saved.folder / "x")
    assert same_tensors(merged, expert)
    assert torch.equal(answers(merged), answers(expert))


@EACH_FAMILY
def test_a_true_merge_loads_and_is_what_the_resident_model_computes(saved: Saved, tmp_path: Path) -> None:
    recipe = saved.recipe("ties", {"x": 1.0, "y": 0.5}, density=0.5)
    export(recipe, saved.models, tmp_path / "out")
    merged = load(saved.base, tmp_path / "out")
    assert answers(merged).isfinite().all()
    assert not torch.equal(answers(merged), answers(saved.base))
    live = load(saved.base, saved.folder / "base").requires_grad_(False)
    ResidentModel(saved.models, live_tensors(live, saved.models.base.names)).apply(recipe)
    assert same_tensors(live, merged)


@pytest.mark.parametrize("family", [f for f in FAMILIES if f.name in HALVED.split()], ids=lambda family: family.name)
def test_half_precision_in_one_file(family: Family, tmp_path: Path) -> None:
    saved = save(family, tmp_path, dtype="bfloat16")
    export(saved.recipe("layer_swap", ONLY_X), saved.models, tmp_path / "out")
    merged, expert = load(saved.base, tmp_path / "out"), load(saved.base, tmp_path / "x")
    assert merged.dtype == DTYPES["bfloat16"]
    assert same_tensors(merged, expert)
    assert torch.equal(answers(merged), answers(expert))


TIES = [(family, tied) for family in FAMILIES for tied in family.tied[1:]]


@pytest.mark.parametrize(("family", "tied"), TIES, ids=lambda value: value.name if isinstance(value, Family) else value)
def test_heads_tied_and_untied(family: Family, tied: bool, tmp_path: Path) -> None:
    saved = save(family, tmp_path, tied=tied, shard="6KB")
    export(saved.recipe("linear", {"x": 0.5, "y": 0.5}), saved.models, tmp_path / "out")
    merged = load(saved.base, tmp_path / "out")
    embedding, head = merged.get_input_embeddings().weight, merged.get_output_embeddings().weight
    assert (head is embedding) == tied
    first, second = (load(saved.base, tmp_path / name).get_output_embeddings().weight for name in "xy")
    assert torch.allclose(head, (first + second) / 2, atol=1e-7)
