"""A live model of other layers is what the exported checkpoint is when it is loaded afresh, in every family."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from evaluation.depth import live_of_depth
from evaluation.live import live_tensors
from merging.arrangement import arrange
from merging.errors import InvalidRecipe
from merging.export import export
from merging.recipe import GroupMerge, Recipe, Slice
from merging.resident import ResidentModel
from merging.resultconfig import result_config
from tests.merging.architectures.conftest import Saved, save
from tests.merging.architectures.families import FAMILIES, Family, answers

LIKE = [
    "llama",
    "qwen3",
    "gemma2",
    "gemma3_text",
    "phi3",
    "gpt_neox",
    "gpt2",
    "opt",
    "bloom",
    "falcon",
    "smollm3",
    "mixtral",
    "gpt_oss",
    "mamba",
]
UNLIKE = ["llama4_text", "deepseek_v3", "jamba", "rwkv"]  # their layers are of several kinds, by number
SPANS = {"repeated": ((0, 2), (1, 2), (0, 1)), "left out": ((1, 2),), "longer": ((0, 1), (0, 2), (0, 2), (1, 2))}


def stacked(saved: Saved, spans: tuple[tuple[int, int], ...]) -> Recipe:
    """A recipe of these runs of layers, with other weights in its last layer."""
    depth = sum(last - first for first, last in spans)
    cuts = sorted({0, depth - 1, depth})
    groups = tuple(
        GroupMerge(layers=(first, last), method="task_arithmetic", weights={"x": 0.7 - 0.4 * i, "y": 0.2})
        for i, (first, last) in enumerate(pairwise(cuts))
    )
    plain = saved.recipe("task_arithmetic", {"x": 0.0, "y": 0.0})
    return plain.model_copy(update={"slices": tuple(Slice(layers=span) for span in spans), "groups": groups})


@torch.no_grad()
def spoken(model: Any) -> Tensor:
    """What the model says after a prompt, through its cache."""
    said: Tensor = model.generate(torch.tensor([[3, 4, 5, 6]]), max_new_tokens=5, do_sample=False)
    return said


def family_of(name: str) -> Family:
    """The family of that name."""
    return next(family for family in FAMILIES if family.name == name)


def made_for(recipe: Recipe, saved: Saved) -> tuple[Any, dict[str, Tensor]]:
    """A live model for the recipe, unwritten."""
    models = saved.models
    arrangement = arrange(recipe, models.layout, models.names)
    shapes = {name: models.shape(part.base) for name, part in arrangement.parts.items()}
    return live_of_depth(saved.base, result_config(models, None, arrangement), shapes)


@pytest.mark.parametrize("name", UNLIKE)
def test_layers_whose_kind_follows_from_their_number_are_refused(name: str, tmp_path: Path) -> None:
    saved = save(family_of(name), tmp_path)
    with pytest.raises(InvalidRecipe, match=r"slices.*leave out slices"):
        made_for(stacked(saved, SPANS["repeated"]), saved)


@pytest.mark.parametrize("family", LIKE)
def test_it_computes_what_the_exported_checkpoint_does(family: str, tmp_path: Path) -> None:
    saved = save(family_of(family), tmp_path)
    models, live = saved.models, saved.base
    writer = ResidentModel(models, live_tensors(live, models.base.names))
    for name, spans in SPANS.items():
        recipe = stacked(saved, spans)
        export(recipe, models, tmp_path / name)
        fresh = type(live).from_pretrained(tmp_path / name, dtype="auto").eval()
        made, tensors = made_for(recipe, saved)
        writer.write(recipe, tensors)
        assert torch.equal(answers(made), answers(fresh)), name
        assert torch.equal(spoken(made), spoken(fresh)), name
