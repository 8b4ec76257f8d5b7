"""`mergesearch merge` and `estimate`: recipes of both kinds to a folder, or in the other's words."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from typer.testing import CliRunner

from api.build import as_mergekit, load_recipe
from api.cli import app
from api.cli import estimate as app_estimate
from merging.checkpoint import SINGLE
from merging.errors import InvalidInput, InvalidModel, InvalidRecipe
from merging.recipe import parse_recipe
from tests.merging.factories import write_models, write_tensors

MERGEKIT: dict[str, Any] = {
    "merge_method": "ties",
    "base_model": "base",
    "dtype": "float32",
    "models": [
        {"model": "add", "parameters": {"weight": 0.6, "density": 0.5}},
        {"model": "sort", "parameters": {"weight": 0.4, "density": [1.0, 0.3]}},
    ],
}


def write(folder: Path, content: Any, name: str = "merge.yaml") -> Path:
    write_models(folder, experts=2)
    (folder / name).write_text(yaml.safe_dump(content))
    return folder / name


def run(*arguments: str | Path) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_a_mergekit_config_and_its_recipe_give_the_same_weights(tmp_path: Path) -> None:
    config = write(tmp_path, MERGEKIT)
    assert run("merge", config, "--to", tmp_path / "one").exit_code == 0
    said = run("merge", config, "--as-recipe")
    (tmp_path / "recipe.json").write_text(said.stdout)
    assert parse_recipe(json.loads(said.stdout)).groups[0].method == "ties"
    assert run("merge", tmp_path / "recipe.json", "--to", tmp_path / "two").exit_code == 0
    one, two = load_file(tmp_path / "one" / SINGLE), load_file(tmp_path / "two" / SINGLE)
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def test_a_recipe_is_said_in_mergekit_s_words_with_what_the_base_is_stored_in(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, MERGEKIT))
    said = yaml.safe_load(as_mergekit(recipe.model_copy(update={"dtype": None})))
    assert said["merge_method"] == "ties" and (said["dtype"], said["out_dtype"]) == ("float32", "float32")
    (tmp_path / "again.yaml").write_text(yaml.safe_dump(said))
    again = load_recipe(tmp_path / "again.yaml")
    prints = {"base": "b", "expert:add": "a", "expert:sort": "s"}
    assert again.digest(prints) == recipe.digest(prints)


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"base_model": "mistralai/Mistral-7B-v0.1"}, "base_model"),
        ({"models": [*MERGEKIT["models"], {"model": "nope", "parameters": {"weight": 1}}]}, "models[2].model"),
    ],
)
def test_a_model_that_is_no_folder_is_named_by_the_config_s_own_key(
    tmp_path: Path, change: dict[str, Any], key: str
) -> None:
    with pytest.raises(InvalidModel, match="is no folder here; download the model") as caught:
        load_recipe(write(tmp_path, MERGEKIT | change))
    assert caught.value.key == key


def test_a_config_without_its_method_is_told_so_in_its_own_words(tmp_path: Path) -> None:
    with pytest.raises(InvalidRecipe, match="merge_method"):
        load_recipe(write(tmp_path, {k.replace("method", "methd"): v for k, v in MERGEKIT.items()}))


def test_a_misspelt_key_of_mergekit_s_is_refused(tmp_path: Path) -> None:
    wrong = MERGEKIT | {"parameters": {"densty": 0.5}}
    with pytest.raises(InvalidRecipe, match="densty"):
        load_recipe(write(tmp_path, wrong))


@pytest.mark.parametrize("options", [(), ("--as-recipe", "--as-mergekit"), ("--to", "x", "--as-recipe")])
def test_merge_does_one_thing(tmp_path: Path, options: tuple[str, ...]) -> None:
    done = run("merge", write(tmp_path, MERGEKIT), *options)
    assert done.exit_code == 2 and "give one of" in " ".join(done.output.split())


def test_a_missing_base_is_estimated_from_its_fine_tunes(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(24, 20, generator=generator)
    models = []
    for index in range(5):
        change = torch.randn(24, 1, generator=generator) @ torch.randn(1, 20, generator=generator)
        tensors = {"layers.0.mlp.up_proj.weight": base + 0.1 * change, "norm.weight": torch.ones(20)}
        models.append(write_tensors(tmp_path / str(index), tensors))
    assert run("estimate", *models, "--to", tmp_path / "base", "--rank", "2").exit_code == 0
    found = load_file(tmp_path / "base" / SINGLE)["layers.0.mlp.up_proj.weight"]
    mean = torch.stack([load_file(model / SINGLE)["layers.0.mlp.up_proj.weight"] for model in models]).mean(0)
    assert (found - base).norm() < 0.01 * (mean - base).norm()


def test_a_device_that_is_not_there_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="device: 'nonsense'"):
        app_estimate([tmp_path / "no", tmp_path / "such", tmp_path / "models"], tmp_path / "base", device="nonsense")


def test_small_numbers_survive_an_export_and_keys_given_twice_do_not(tmp_path: Path) -> None:
    base, experts = write_models(tmp_path, experts=2)
    group = {"layers": [0, 4], "method": "ram", "parameters": {"epsilon": 1e-5}, "weights": {"add": 1, "sort": 1}}
    content = {"schema": "mergesearch/recipe/v1", "base": str(base), "experts": {n: str(p) for n, p in experts.items()}}
    recipe = parse_recipe(content | {"groups": [group]})
    (tmp_path / "recipe.json").write_text(recipe.to_json())
    assert "1e-05" in recipe.to_json() and load_recipe(tmp_path / "recipe.json") == recipe
    (tmp_path / "twice.yaml").write_text(yaml.safe_dump(content) + "seed: 1\nseed: 2\n")
    with pytest.raises(InvalidRecipe, match="'seed' is given twice"):
        load_recipe(tmp_path / "twice.yaml")
