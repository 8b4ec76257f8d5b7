"""Merges written as what they change of the base: stock peft loads the LoRA, and a study the compressed delta."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from merging.artefacts.measured import TensorReadings
from merging.catalog.declare import ArtefactKind
from merging.checkpoint import SINGLE, Checkpoint
from merging.codecs.catalog import CODECS
from merging.deltaexport import AdapterSettings, export_adapter, export_compressed
from merging.errors import InvalidModel, InvalidRecipe, OutputError
from merging.expertfolder import open_expert
from merging.export import export
from merging.models import ModelSet
from merging.recipe import Recipe, Slice
from tests.merging.adapters.real import EVERY, adapted, logits, peft, quietly
from tests.merging.factories import a_recipe, fine_tuned, tiny_llama


def adapters(root: Path, dtype: torch.dtype = torch.float32) -> ModelSet:
    """Two LoRAs of one base."""
    base = tiny_llama(dtype=dtype)
    base.save_pretrained(root / "base")
    for seed, name in enumerate(("a", "b")):
        adapted(base, root / name, target_modules=EVERY, seed=seed, lora_alpha=4)
    return ModelSet.open(root / "base", {"a": root / "a", "b": root / "b"})


def full(root: Path) -> ModelSet:
    """Two full fine-tunes of one base."""
    base = tiny_llama()
    base.save_pretrained(root / "base")
    for seed, name in enumerate(("a", "b")):
        fine_tuned(base, seed).save_pretrained(root / name)
    return ModelSet.open(root / "base", {"a": root / "a", "b": root / "b"})


def by_peft(base: Path, adapter: Path) -> Any:
    """The base with the adapter, as anybody loads it."""
    from transformers import AutoModelForCausalLM

    return quietly(peft.PeftModel.from_pretrained, AutoModelForCausalLM.from_pretrained(base), adapter).eval()


def exported(models: ModelSet, recipe: Recipe, to: Path) -> Any:
    from transformers import AutoModelForCausalLM

    export(recipe, models, to)
    return AutoModelForCausalLM.from_pretrained(to).eval()


@pytest.mark.parametrize("method", ["regmean", "regmean_pp", "pleas_pp"])
def test_what_a_recipe_looks_at_is_found_whatever_it_is_written_as(tmp_path: Path, method: str) -> None:
    models = full(tmp_path)
    recipe = a_recipe(models, method)
    export(recipe, models, tmp_path / "full")
    export_compressed(recipe, models, tmp_path / "delta", ("xor", {}))
    export_adapter(recipe, models, tmp_path / "lora", AdapterSettings())
    whole, base = Checkpoint(tmp_path / "full"), models.base
    delta = open_expert(tmp_path / "delta", "delta", base)
    lora = open_expert(tmp_path / "lora", "lora", base)
    for name in base.names:
        assert torch.equal(whole.tensor(name), delta.tensor(name))
        torch.testing.assert_close(whole.tensor(name), lora.tensor(name), rtol=1e-3, atol=1e-4)
    assert any(not torch.equal(whole.tensor(name), base.tensor(name)) for name in base.names)


def test_what_no_adapter_touches_may_still_be_fitted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models, read = adapters(tmp_path), TensorReadings.tensor

    def halved(self: TensorReadings, kind: ArtefactKind, expert: int, part: str = "") -> Tensor | None:
        """As if the merge saw something else than its experts do, which is what the head is fitted for."""
        found = read(self, kind, expert, part)
        return found / 2 if found is not None and part.startswith("cross") else found

    monkeypatch.setattr(TensorReadings, "tensor", halved)
    recipe = a_recipe(models, "pleas_pp")
    model = exported(models, recipe, tmp_path / "full")
    found = export_adapter(recipe, models, tmp_path / "lora", AdapterSettings())
    head, base = "lm_head.weight", models.base
    assert all(torch.equal(each.tensor(head), base.tensor(head)) for each in models.experts.values())
    assert head in found.whole or head in found.factors
    assert not torch.equal(Checkpoint(tmp_path / "full").tensor(head), base.tensor(head))
    assert "model.norm.weight" not in found.whole, "which nothing changed"
    lora = by_peft(tmp_path / "base", tmp_path / "lora")
    torch.testing.assert_close(logits(lora), logits(model), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("method", ["task_arithmetic", "linear"])
def test_a_sum_of_loras_is_exactly_one_lora(tmp_path: Path, method: str) -> None:
    models = adapters(tmp_path)
    recipe = a_recipe(models, method)
    found = export_adapter(recipe, models, tmp_path / "lora", AdapterSettings())
    assert found.share == 1.0 and not found.whole and {row.rank for row in found.kept.values() if row.rank} == {8}
    merged = exported(models, recipe, tmp_path / "full")
    torch.testing.assert_close(
        logits(by_peft(tmp_path / "base", tmp_path / "lora")), logits(merged), rtol=1e-5, atol=1e-5
    )
    assert json.loads((tmp_path / "lora" / "recipe.json").read_text())["base"] == "../base"


@pytest.mark.parametrize(("method", "ranks"), [("ties", set(range(9, 33))), ("knots", set(range(1, 9)))])
def test_what_is_no_sum_is_decomposed(tmp_path: Path, method: str, ranks: set[int]) -> None:
    models = adapters(tmp_path)
    recipe = a_recipe(models, method)
    found = export_adapter(recipe, models, tmp_path / "lora", AdapterSettings(energy=1.0 - 1e-9))
    assert found.share > 1.0 - 1e-8 and {row.rank for row in found.kept.values() if row.rank} <= ranks
    merged = exported(models, recipe, tmp_path / "full")
    torch.testing.assert_close(
        logits(by_peft(tmp_path / "base", tmp_path / "lora")), logits(merged), rtol=1e-4, atol=1e-4
    )


def test_full_fine_tunes_are_written_at_a_rank_and_say_what_that_keeps(tmp_path: Path) -> None:
    models = full(tmp_path)
    recipe = a_recipe(models)
    found = export_adapter(recipe, models, tmp_path / "lora", AdapterSettings(rank=6))
    assert {row.rank for row in found.kept.values() if row.rank} == {6} and 0.2 < found.share < 0.9
    assert "model.norm.weight" in found.whole  # what is no matrix is written as it is
    merged, lora = exported(models, recipe, tmp_path / "full"), by_peft(tmp_path / "base", tmp_path / "lora")
    base = tiny_llama().eval()
    assert (logits(lora) - logits(merged)).norm() < (logits(base) - logits(merged)).norm()


def test_a_narrow_rank_cuts_a_sum_of_loras(tmp_path: Path) -> None:
    models = adapters(tmp_path)
    found = export_adapter(a_recipe(models), models, tmp_path / "lora", AdapterSettings(rank=3))
    assert {row.rank for row in found.kept.values()} == {3} and 0.4 < found.share < 1.0


def test_rounding_of_the_base_does_not_reach_the_lora(tmp_path: Path) -> None:
    models = adapters(tmp_path, torch.bfloat16)
    found = export_adapter(a_recipe(models, "slerp"), models, tmp_path / "lora", AdapterSettings(energy=1.0 - 1e-6))
    assert max(row.rank for row in found.kept.values()) <= 9  # in bfloat16 it would be full


@pytest.mark.parametrize("name", CODECS)
def test_a_compressed_merge_is_an_expert_of_its_base(tmp_path: Path, name: str) -> None:
    models = full(tmp_path)
    recipe = a_recipe(models)
    record = export_compressed(recipe, models, tmp_path / "small", (name, {}))
    export(recipe, models, tmp_path / "full")
    wanted = load_file(tmp_path / "full" / SINGLE)
    expert = open_expert(tmp_path / "small", "x", models.base)
    for tensor in models.base.names:
        before, after = models.base.tensor(tensor), wanted[tensor]
        if CODECS[name].lossless:
            assert torch.equal(expert.tensor(tensor), after)
        else:
            assert (expert.tensor(tensor) - after).norm() <= (before - after).norm()
    assert record.bits_per_parameter < 32
    ModelSet.open(models.base.path, {"x": tmp_path / "small"}).stack("model.norm.weight")


def test_what_cannot_be_written_as_a_delta_says_so_and_leaves_nothing(tmp_path: Path) -> None:
    models = full(tmp_path)
    doubled = a_recipe(models, groups=1).model_copy(update={"slices": (Slice(layers=(0, 4)),)})
    for write in (
        lambda: export_adapter(doubled, models, tmp_path / "out", AdapterSettings()),
        lambda: export_compressed(doubled, models, tmp_path / "out", ("xor", {})),
    ):
        with pytest.raises(InvalidRecipe, match=r"slices: 1 gives the result other tensors .*; export it as a full"):
            write()
    nothing = a_recipe(models).model_copy(
        update={
            "groups": tuple(g.model_copy(update={"weights": {"a": 0.0, "b": 0.0}}) for g in a_recipe(models).groups)
        }
    )
    with pytest.raises(InvalidModel, match="would change nothing"):
        export_adapter(nothing, models, tmp_path / "out", AdapterSettings())
    assert not (tmp_path / "out").exists()
    (tmp_path / "out").mkdir()
    with pytest.raises(OutputError):
        export_compressed(a_recipe(models), models, tmp_path / "out", ("xor", {}))
    assert Checkpoint(models.base.path).names == models.base.names
