"""An export is a folder that transformers loads, laid out as the base is; it appears whole or not at all."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from evaluation.live import live_tensors
from merging import export as export_module
from merging.checkpoint import INDEX, SINGLE, Checkpoint
from merging.errors import InvalidRecipe, NonFiniteCandidate, OutputError
from merging.export import export
from merging.folder import _host
from merging.models import ModelSet
from merging.recipe import GroupMerge, Override, Recipe, Slice, parse_recipe, resolved
from merging.resident import ResidentModel
from tests.merging.factories import a_recipe, models_of, open_models, recipe_of, write_models

TOKENS = torch.tensor([[1, 2, 3, 5, 8, 13]])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("sharded", [False, True])
def test_transformers_loads_it(tmp_path: Path, dtype: torch.dtype, tied: bool, sharded: bool) -> None:
    models = open_models(tmp_path, dtype=dtype, tied=tied, sharded=sharded)
    recipe = a_recipe(models)
    live = AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype="auto").eval()
    ResidentModel(models, live_tensors(live, models.base.names)).apply(recipe)
    export(recipe, models, tmp_path / "out")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto").eval()
    assert loaded.dtype == dtype
    assert torch.equal(loaded(TOKENS).logits, live(TOKENS).logits)
    files = {p.name for p in (tmp_path / "out").glob("model*")}
    assert files == {p.name for p in (tmp_path / "base").glob("model*")}
    if sharded:
        ours, theirs = (json.loads((tmp_path / place / INDEX).read_text()) for place in ("out", "base"))
        assert ours["weight_map"] == theirs["weight_map"]
        assert ours["metadata"]["total_size"] == theirs["metadata"]["total_size"]


def test_the_safetensors_library_reads_aligned_tensors(tmp_path: Path) -> None:
    mixed = {"a": torch.ones(3, dtype=torch.float16), "b": torch.ones(3), "c": torch.tensor(7), "e": torch.empty(0, 2)}
    models = models_of(tmp_path, mixed, mixed)
    export(a_recipe(models, groups=1), models, tmp_path / "out")
    with safe_open(tmp_path / "out" / SINGLE, "pt") as file:
        assert file.metadata() == {"format": "pt"}
        for name, tensor in mixed.items():
            assert torch.equal(file.get_tensor(name), tensor) and file.get_tensor(name).dtype == tensor.dtype
    for entry in Checkpoint(tmp_path / "out").shards[SINGLE].entries.values():
        assert entry.start % entry.dtype.itemsize == 0


def test_another_dtype(tmp_path: Path) -> None:
    models = open_models(tmp_path, sharded=True)
    models.base.config["text_config"] = {"torch_dtype": "float32"}
    export(a_recipe(models, dtype="bfloat16"), models, tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["dtype"] == "bfloat16" and config["text_config"] == {"torch_dtype": "bfloat16"}
    found = Checkpoint(tmp_path / "out")
    assert {found.entry(name).dtype for name in found.names} == {torch.bfloat16}
    index = json.loads((tmp_path / "out" / INDEX).read_text())
    assert index["metadata"]["total_size"] == 2 * sum(t.numel() for t in map(found.tensor, found.names))


def test_a_stored_tied_head_is_not_written_and_the_tie_is_declared(tmp_path: Path) -> None:
    base, experts = write_models(tmp_path, tied=True)
    for folder in (base, *experts.values()):
        tensors = load_file(folder / SINGLE)
        save_file(tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"].clone()}, folder / SINGLE)
        config = json.loads((folder / "config.json").read_text())
        del config["tie_word_embeddings"]
        (folder / "config.json").write_text(json.dumps(config))
    models = ModelSet.open(base, experts)
    export(a_recipe(models), models, tmp_path / "out")
    assert "lm_head.weight" not in load_file(tmp_path / "out" / SINGLE)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert loaded.lm_head.weight is loaded.model.embed_tokens.weight


def test_what_stands_beside_the_weights(tmp_path: Path) -> None:
    base, experts = write_models(tmp_path)
    kept = ["tokenizer_config.json", "chat_template.jinja", "generation_config.json", "vocab.json", "LICENSE"]
    left = [
        "pytorch_model.bin",
        "optimizer.pt",
        "trainer_state.json",
        "training_args.bin",
        "modeling_x.py",
        "README.md",
    ]
    for name in kept + left:
        (base / name).write_text("{}")
    (base / "additional_chat_templates").mkdir()
    (base / "additional_chat_templates" / "tool.jinja").write_text("tool")
    models = ModelSet.open(base, experts)
    recipe = a_recipe(models, "ties", seed=4)
    export(recipe, models, tmp_path / "out", {"README.md": b"# card", "vocab.json": b"[]"})
    names = {p.name for p in (tmp_path / "out").iterdir()}
    assert names == {
        *kept,
        "tokenizer.json",
        "config.json",
        SINGLE,
        "recipe.json",
        "README.md",
        "additional_chat_templates",
    }
    assert (tmp_path / "out" / "additional_chat_templates" / "tool.jinja").read_text() == "tool"
    assert (tmp_path / "out" / "README.md").read_bytes() == b"# card"
    assert (tmp_path / "out" / "vocab.json").read_bytes() == b"[]"
    written = parse_recipe(json.loads((tmp_path / "out" / "recipe.json").read_text()))
    assert not Path(written.base).is_absolute() and resolved(written, tmp_path / "out") == recipe
    assert (tmp_path / "out").stat().st_mode & 0o777 == base.stat().st_mode & 0o777


@pytest.mark.parametrize("name", ["../up", "sub/file", ""])
def test_extra_files_have_plain_names(tmp_path: Path, name: str) -> None:
    models = open_models(tmp_path)
    with pytest.raises(ValueError, match="is not a plain file name"):
        export(a_recipe(models), models, tmp_path / "out", {name: b""})
    assert not (tmp_path / "out").exists()


def in_the_way(to: Path) -> None:
    to.mkdir()


def dangling(to: Path) -> None:
    to.symlink_to("nowhere")


@pytest.mark.parametrize("make", [in_the_way, dangling, Path.touch])
def test_existing_destination_is_left_alone(tmp_path: Path, make: Any) -> None:
    models = open_models(tmp_path)
    make(tmp_path / "out")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(OutputError, match=f"^to: '{tmp_path / 'out'}' exists; choose another folder"):
        export(a_recipe(models), models, tmp_path / "out")
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("parent", "problem"),
    [("gone", "cannot be written .*; create its parent"), ("file", "cannot be written .*; choose a folder")],
)
def test_unusable_parent(tmp_path: Path, parent: str, problem: str) -> None:
    models = open_models(tmp_path)
    (tmp_path / "file").touch()
    before = sorted(tmp_path.iterdir())
    with pytest.raises(OutputError, match=problem) as info:
        export(a_recipe(models), models, tmp_path / parent / "out")
    assert str(info.value).startswith(f"to: '{tmp_path / parent / 'out'}' ")
    assert sorted(tmp_path.iterdir()) == before


def test_nothing_is_left_of_an_overflowing_merge(tmp_path: Path) -> None:
    big = {"layers.0.a": torch.ones(4), "layers.0.b": torch.full((4,), 6e4)}
    models = models_of(tmp_path, big, {name: tensor * 2 for name, tensor in big.items()})
    before = sorted(tmp_path.iterdir())
    with pytest.raises(NonFiniteCandidate, match=r"task_arithmetic .* layers.0.b"):
        export(a_recipe(models, groups=1, dtype="float16"), models, tmp_path / "out")
    assert sorted(tmp_path.iterdir()) == before


def test_nothing_is_left_of_a_recipe_for_other_models(tmp_path: Path) -> None:
    models = open_models(tmp_path)
    before = sorted(tmp_path.iterdir())
    content = a_recipe(models).model_dump(by_alias=True)
    content["groups"][1]["layers"] = (2, 9)
    with pytest.raises(InvalidRecipe, match="groups: 9 layers are described, but the models have 4"):
        export(Recipe.model_validate(content), models, tmp_path / "out")
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_nothing_is_left_when_the_disk_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    models = open_models(tmp_path)
    before = sorted(tmp_path.iterdir())

    def broken(handle: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OutputError, match=f"cannot be written \\({os.strerror(code)}\\); ") as info:
        export(a_recipe(models), models, tmp_path / "out")
    assert ("free disk space" in str(info.value)) == (code == errno.ENOSPC)
    assert sorted(tmp_path.iterdir()) == before


def test_what_a_killed_export_left_does_not_matter(tmp_path: Path) -> None:
    models = open_models(tmp_path)
    (tmp_path / ".out.part").mkdir()
    (tmp_path / ".out.0.part").mkdir()
    export(a_recipe(models), models, tmp_path / "out")
    assert (tmp_path / "out" / SINGLE).exists()


@pytest.mark.parametrize("name", ["out", "out.v[1]"])
def test_what_a_dead_process_left_goes_and_what_may_be_in_use_stays(tmp_path: Path, name: str) -> None:
    models, host = open_models(tmp_path), _host()
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    dead = tmp_path / f".{name}.{host}.{ended.pid}.abcd_012.part"
    stay = [
        tmp_path / f".{name}.{host}.{os.getppid()}.abcd_012.part",
        tmp_path / f".{name}.{host}.{os.getpid()}.abcd_012.part",
        tmp_path / f".{name}.not-{host}.{ended.pid}.abcd_012.part",
        tmp_path / f".{name}.other.{host}.{ended.pid}.abcd_012.part",
        tmp_path / f".{name}.{host}.{ended.pid}.abcd_012",
    ]
    for folder in (dead, *stay):
        folder.mkdir()
        (folder / SINGLE).touch()
    export(a_recipe(models), models, tmp_path / name)
    assert not dead.exists() and all((folder / SINGLE).exists() for folder in stay)


def test_a_killed_export_is_cleared_away_by_the_next(tmp_path: Path) -> None:
    killed = "import os, sys, pathlib as p, merging.folder as e\nwith e.appearing(p.Path(sys.argv[1])): os._exit(9)"
    root = Path(export_module.__file__).parent.parent
    done = subprocess.run([sys.executable, "-c", killed, str(tmp_path / "out")], cwd=root, check=False)
    assert done.returncode == 9 and len(list(tmp_path.glob(".out.*.part"))) == 1
    models = open_models(tmp_path)
    export(a_recipe(models), models, tmp_path / "out")
    assert not list(tmp_path.glob(".out.*"))


def test_a_folder_that_appears_meanwhile_is_not_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models, write = open_models(tmp_path), export_module._write_weights

    def slow(engine: Any, plans: Any, folder: Path) -> None:
        write(engine, plans, folder)
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "theirs").touch()

    monkeypatch.setattr(export_module, "_write_weights", slow)
    with pytest.raises(OutputError, match="exists; choose another folder"):
        export(a_recipe(models), models, tmp_path / "out")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["theirs"]
    assert not list(tmp_path.glob(".*"))


def test_stacked_layers_make_a_deeper_model_that_loads(tmp_path: Path) -> None:
    models = open_models(tmp_path, experts=2)
    one = {"add": 1.0, "sort": 0.0}
    groups = (GroupMerge(layers=(0, 6), method="passthrough", weights=one),)
    recipe = recipe_of(models, groups, slices=(Slice(layers=(0, 3)), Slice(layers=(1, 4))))
    export(recipe, models, tmp_path / "out")
    stacked = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    source = AutoModelForCausalLM.from_pretrained(tmp_path / "add")
    assert stacked.config.num_hidden_layers == len(stacked.model.layers) == 6
    for layer, origin in zip(stacked.model.layers, (0, 1, 2, 1, 2, 3), strict=True):
        for name, tensor in layer.state_dict().items():
            assert torch.equal(tensor, source.model.layers[origin].state_dict()[name])


def test_overrides_and_numbers_of_each_expert_reach_the_weights(tmp_path: Path) -> None:
    models = open_models(tmp_path, experts=2)
    weights = {"add": 1.0, "sort": 1.0}
    group = GroupMerge(
        layers=(0, 4), method="ties", parameters={"density": {"add": 1.0, "sort": 1e-6}}, weights=weights
    )
    norm = Override(contains="norm", method="passthrough", weights={"add": 0.0, "sort": 1.0})
    export(recipe_of(models, (group,), overrides=(norm,)), models, tmp_path / "out")
    merged = load_file(tmp_path / "out" / SINGLE)
    add = models.stack("model.layers.1.mlp.up_proj.weight").experts[0]
    changed = (merged["model.layers.1.mlp.up_proj.weight"] - add).abs() > 1e-6
    assert int(changed.sum()) <= 1  # of `sort` one element is left
    assert torch.equal(merged["model.norm.weight"], models.stack("model.norm.weight").experts[1])
