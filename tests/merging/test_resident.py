"""A live model holds, after every apply, exactly what an export would store: whatever was applied before."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from evaluation.live import live_tensors
from merging.catalog import CATALOG
from merging.errors import InvalidModel, NonFiniteCandidate
from merging.export import export
from merging.models import ModelSet
from merging.recipe import Recipe
from merging.resident import ResidentModel
from tests.merging.factories import a_group, a_recipe, models_of, open_models, recipe_of, takes, tiny_llama


def exported(recipe: Recipe, models: ModelSet, to: Path) -> dict[str, Tensor]:
    export(recipe, models, to)
    return {name: tensor for file in to.glob("*.safetensors") for name, tensor in load_file(file).items()}


def assert_holds(live: Any, expected: dict[str, Tensor]) -> None:
    state = live.state_dict()
    for name, tensor in expected.items():
        assert torch.equal(state[name], tensor.to(state[name].dtype)), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_same_bits_as_export(tmp_path: Path, dtype: torch.dtype) -> None:
    both, live = open_models(tmp_path, dtype=dtype, experts=2), tiny_llama(9, dtype=dtype)
    alone = ModelSet.open(both.base.path, {"add": both.experts["add"].path})
    of_both, of_one = (ResidentModel(models, live_tensors(live, both.base.names)) for models in (both, alone))
    for method in CATALOG:
        models, resident = (both, of_both) if takes(method, 2) else (alone, of_one)
        recipe = a_recipe(models, method, seed=3)
        assert resident.apply(recipe).tensors == len(models.base.names)
        assert_holds(live, exported(recipe, models, tmp_path / f"out_{method}"))
        assert resident.apply(recipe).tensors == 0


@pytest.mark.parametrize("dtype", [None, "bfloat16"])
def test_live_model_of_another_dtype(tmp_path: Path, dtype: Any) -> None:
    models = open_models(tmp_path, dtype=torch.float32 if dtype else torch.bfloat16)
    live, recipe = tiny_llama(9), a_recipe(models, dtype=dtype)
    ResidentModel(models, live_tensors(live, models.base.names)).apply(recipe)
    stored = exported(recipe, models, tmp_path / "out")
    assert all(tensor.dtype == torch.bfloat16 for tensor in stored.values())
    assert_holds(live, stored)


def test_only_what_changed_is_rebuilt(tmp_path: Path) -> None:
    models = open_models(tmp_path)
    live = tiny_llama(9)
    resident = ResidentModel(models, live_tensors(live, models.base.names))
    recipe = a_recipe(models, groups=4)
    build = resident.apply(recipe)
    assert (build.tensors, build.groups) == (len(models.base.names), 4) and build.seconds > 0
    other = a_group(CATALOG["ties"], (1, 2), models.names)
    changed = recipe_of(models, (recipe.groups[0], other, *recipe.groups[2:]))
    build = resident.apply(changed)
    assert (build.tensors, build.groups) == (9, 1)
    assert_holds(live, exported(changed, models, tmp_path / "out"))
    spelt = other.model_copy(update={"parameters": {"density": 0.3}})
    named = recipe_of(models, (recipe.groups[0], spelt, *recipe.groups[2:]))
    assert resident.apply(named).tensors == 0  # the default, spelt out


def test_a_seed_matters_to_random_methods_only(tmp_path: Path) -> None:
    models = open_models(tmp_path)
    resident = ResidentModel(models, live_tensors(tiny_llama(9), models.base.names))
    for method, rebuilt in (("task_arithmetic", 0), ("dare", len(models.base.names))):
        resident.apply(a_recipe(models, method, seed=0))
        assert resident.apply(a_recipe(models, method, seed=1)).tensors == rebuilt


def test_the_apply_after_a_failed_one_is_right(tmp_path: Path) -> None:
    names = [f"layers.{i}.w" for i in range(4)]
    big = torch.full((5,), 3e4, dtype=torch.float16)
    base, expert = ({name: big * part for name in names} for part in (0.5, 1.0))
    expert["layers.2.w"] = big * 2  # only here the sum overflows
    models = models_of(tmp_path, base, expert)
    live = {name: torch.zeros(5, dtype=torch.float16) for name in names}
    resident = ResidentModel(models, live)
    good, bad = (a_recipe(models, groups=1).model_dump(by_alias=True) for _ in range(2))
    bad["groups"][0]["weights"] = {"a": 1.5}
    resident.apply(Recipe.model_validate(good))
    expected = {name: tensor.clone() for name, tensor in live.items()}
    with pytest.raises(NonFiniteCandidate, match=r"task_arithmetic .* layers.2.w"):
        resident.apply(Recipe.model_validate(bad))
    assert resident.apply(Recipe.model_validate(good)).tensors == 3  # the fourth was not reached
    assert all(torch.equal(live[name], expected[name]) for name in names)


def test_tied_parameters_are_written_once(tmp_path: Path) -> None:
    models, live = open_models(tmp_path, tied=True), tiny_llama(9, tied=True)
    recipe = a_recipe(models)
    resident = ResidentModel(models, live_tensors(live, models.base.names))
    assert resident.apply(recipe).tensors == len(models.base.names)
    assert live.lm_head.weight is live.model.embed_tokens.weight
    assert_holds(live, exported(recipe, models, tmp_path / "out"))


def test_it_finds_the_names_of_a_bare_checkpoint(tmp_path: Path) -> None:
    live = GPT2LMHeadModel(
        GPT2Config(vocab_size=31, n_positions=32, n_embd=16, n_layer=2, n_head=2, bos_token_id=1, eos_token_id=1)
    )
    for seed, name in enumerate(("base", "x")):
        torch.manual_seed(seed)
        GPT2LMHeadModel(live.config).transformer.save_pretrained(tmp_path / name)
    models = ModelSet.open(tmp_path / "base", {"x": tmp_path / "x"})
    assert "h.0.attn.c_attn.weight" in models.base.names
    ResidentModel(models, live_tensors(live, models.base.names)).apply(a_recipe(models, "layer_swap"))
    name = "h.1.attn.c_attn.weight"
    assert torch.equal(live.transformer.h[1].attn.c_attn.weight, models.experts["x"].tensor(name))


NORM = "model.norm.weight"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda live: live.pop(NORM), f"has the tensor {NORM}, which the live model lacks"),
        (lambda live: live.update({NORM: torch.ones(3)}), f"has {NORM} of shape [32], the live model [3]"),
        (lambda live: live.update(more=torch.ones(3)), "lacks the live model's parameter more"),
        (lambda live: live.update({NORM: live["model.layers.0.input_layernorm.weight"]}), "which the live model ties"),
    ],
)
def test_live_models_that_do_not_fit(tmp_path: Path, change: Any, problem: str) -> None:
    models = open_models(tmp_path)
    live = live_tensors(tiny_llama(9), models.base.names)
    change(live)
    with pytest.raises(InvalidModel) as info:
        ResidentModel(models, live)
    message = str(info.value)
    assert message.startswith(f"models.base: '{tmp_path / 'base'}' ")
    remedy = "set tie_word_embeddings to true" if "ties" in problem else "build the live model from the base's own"
    assert problem in message and remedy in message.split("; ", 1)[1]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("device_bytes", [None, 0])
def test_on_a_gpu(tmp_path: Path, device_bytes: int | None) -> None:
    models = open_models(tmp_path, experts=2)
    cpu, gpu = tiny_llama(9), tiny_llama(9).cuda()
    for method in CATALOG:
        recipe = a_recipe(models, method)
        ResidentModel(models, live_tensors(cpu, models.base.names)).apply(recipe)
        ResidentModel(models, live_tensors(gpu, models.base.names), device_bytes=device_bytes).apply(recipe)
        for name, tensor in gpu.state_dict().items():
            torch.testing.assert_close(tensor.cpu(), cpu.state_dict()[name])
