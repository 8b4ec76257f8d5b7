"""Experts that are no full checkpoints: merged as if they were, without ever being written out."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from evaluation.live import live_tensors
from merging.checkpoint import SINGLE, Checkpoint
from merging.codecs.catalog import CODECS, codec
from merging.codecs.folder import About, write
from merging.codecs.packing import pack_expert
from merging.errors import InvalidModel
from merging.expert import DeltaExpert
from merging.expertfolder import open_expert
from merging.export import export
from merging.models import ModelSet
from merging.resident import ResidentModel
from tests.merging.adapters.real import EVERY, adapted, merged_by_peft, quietly
from tests.merging.factories import a_recipe, fine_tuned, tiny_llama

METHODS = ("task_arithmetic", "ties", "dare_ties", "slerp", "tsv_m", "fisher")


def lora(root: Path, **settings: Any) -> tuple[Path, Path, Path]:
    """A base, a LoRA of it, and the same merged by peft: their folders."""
    base = tiny_llama()
    base.save_pretrained(root / "base")
    inside = adapted(base, root / "lora", target_modules=EVERY, **settings)
    merged_by_peft(inside).save_pretrained(root / "merged")
    fine_tuned(base, 3).save_pretrained(root / "full")
    return root / "base", root / "lora", root / "merged"


def exported(models: ModelSet, method: str, to: Path) -> dict[str, torch.Tensor]:
    recipe = a_recipe(models, method)
    export(recipe, models, to)
    return load_file(to / SINGLE)


@pytest.mark.parametrize("settings", [{}, {"use_dora": True}, {"use_rslora": True, "modules_to_save": ["lm_head"]}])
def test_a_lora_is_merged_as_the_checkpoint_it_makes(tmp_path: Path, settings: dict[str, Any]) -> None:
    base, adapter, merged = lora(tmp_path, **settings)
    mine = ModelSet.open(base, {"x": adapter, "full": tmp_path / "full"})
    theirs = ModelSet.open(base, {"x": merged, "full": tmp_path / "full"})
    found, wanted = (
        exported(mine, "task_arithmetic", tmp_path / "a"),
        exported(theirs, "task_arithmetic", tmp_path / "b"),
    )
    for name, tensor in wanted.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", ["lora", "compeft"])
def test_a_resident_model_holds_what_an_export_writes(tmp_path: Path, method: str, kind: str) -> None:
    base, adapter, _ = lora(tmp_path)
    if kind == "compeft":
        adapter = compressed(base, tmp_path / "full", tmp_path / "small", kind)
    models = ModelSet.open(base, {"x": adapter, "full": tmp_path / "full"})
    live = tiny_llama(9)
    resident = ResidentModel(models, live_tensors(live, models.base.names))
    resident.apply(a_recipe(models, method))
    for name, tensor in exported(models, method, tmp_path / "out").items():
        assert torch.equal(live.state_dict()[name], tensor), name


def test_a_lora_takes_the_room_of_its_factors(tmp_path: Path) -> None:
    base, adapter, merged = lora(tmp_path)
    opened = open_expert(adapter, "models.experts[0]", Checkpoint(base))
    full = Checkpoint(merged)

    def size(expert: Any) -> int:
        return sum(e.end - e.start for e in map(expert.entry, expert.names))

    assert isinstance(opened, DeltaExpert) and size(opened) < size(full) / 3
    factors = sum(tensor.nbytes for tensor in load_file(adapter / "adapter_model.safetensors").values())
    assert size(opened) <= 2 * factors  # the scale, 6 / 4, is no power of two: a factor may become float32


def test_loras_on_top_of_each_other_are_one_expert(tmp_path: Path) -> None:
    base = tiny_llama()
    base.save_pretrained(tmp_path / "base")
    first = adapted(base, tmp_path / "chain" / "1", target_modules=EVERY, seed=1)
    second = adapted(merged_by_peft(first), tmp_path / "chain" / "2", target_modules=["q_proj"], seed=2, use_dora=True)
    third = adapted(merged_by_peft(second), tmp_path / "chain" / "10", target_modules=["q_proj"], seed=3)
    opened = open_expert(tmp_path / "chain", "x", Checkpoint(tmp_path / "base"))
    wanted = merged_by_peft(third).state_dict()
    for name in opened.names:
        torch.testing.assert_close(opened.tensor(name), wanted[name], rtol=1e-5, atol=1e-6)
    alone = open_expert(tmp_path / "chain" / "1", "x", Checkpoint(tmp_path / "base"))
    assert opened.fingerprint() != alone.fingerprint()


def compressed(base: Path, expert: Path, to: Path, name: str, **settings: float) -> Path:
    ancestor, model = Checkpoint(base), Checkpoint(expert)
    about = About(name, codec(name).checked(settings), model)
    write(to, ancestor, pack_expert(ancestor, model, name, settings), about)
    return to


@pytest.mark.parametrize("name", CODECS)
def test_a_compressed_expert_is_merged(tmp_path: Path, name: str) -> None:
    base, _, _ = lora(tmp_path)
    compressed(base, tmp_path / "full", tmp_path / "small", name)
    models = ModelSet.open(base, {"x": tmp_path / "small"})
    original = Checkpoint(tmp_path / "full")
    differs = False
    for tensor in models.base.names:
        (mine,), theirs = models.stack(tensor).experts, original.tensor(tensor)
        assert mine.shape == theirs.shape
        differs |= not torch.equal(mine.float(), theirs.float())
    assert differs != CODECS[name].lossless
    live = tiny_llama(9)
    ResidentModel(models, live_tensors(live, models.base.names)).apply(a_recipe(models))


def test_a_delta_of_another_base_is_refused(tmp_path: Path) -> None:
    base, _, merged = lora(tmp_path)
    compressed(base, tmp_path / "full", tmp_path / "small", "bitdelta")
    with pytest.raises(
        InvalidModel, match=r"models.experts\[0\]: .*small' was compressed against another base .* give"
    ):
        ModelSet.open(merged, {"x": tmp_path / "small"})


def test_contents_name_an_expert_wherever_it_lies(tmp_path: Path) -> None:
    base, adapter, merged = lora(tmp_path)
    ancestor = Checkpoint(base)

    def name_of(path: Path) -> str:
        return open_expert(path, "x", ancestor).fingerprint()

    first = name_of(adapter)
    shutil.copytree(adapter, tmp_path / "copy")
    assert name_of(tmp_path / "copy") == first and name_of(merged) != first
    config = tmp_path / "copy" / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"lora_alpha": 12}))
    assert name_of(tmp_path / "copy") != first
    small = compressed(base, tmp_path / "full", tmp_path / "small", "compeft")
    other = compressed(base, tmp_path / "full", tmp_path / "other", "compeft", density=0.2)
    assert len({name_of(small), name_of(other), first}) == 3


def test_an_adapter_is_no_base(tmp_path: Path) -> None:
    base, adapter, _ = lora(tmp_path)
    with pytest.raises(InvalidModel, match=r"models\.base: .* is a LoRA adapter, .* give it as an expert"):
        ModelSet.open(adapter, {"x": base})


def test_a_folder_with_weights_of_its_own_is_a_checkpoint(tmp_path: Path) -> None:
    base, adapter, merged = lora(tmp_path)
    shutil.copy(adapter / "adapter_config.json", merged)  # left there by a merge in place
    assert isinstance(open_expert(merged, "x", Checkpoint(base)), Checkpoint)


def test_peft_is_what_wrote_these(tmp_path: Path) -> None:
    """The adapters of these tests load with stock peft: they are real."""
    base, adapter, _ = lora(tmp_path)
    import peft
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base)
    assert quietly(peft.PeftModel.from_pretrained, model, adapter).active_adapter == "default"
