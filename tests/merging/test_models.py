"""Experts must fit their base; what does not fit is named."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from merging.checkpoint import SINGLE
from merging.errors import InvalidModel
from merging.models import ModelSet
from tests.merging.factories import LAYERS, fine_tuned, open_models, tiny_llama, write_models

Tensors = dict[str, torch.Tensor]


def test_stack_layout_and_fingerprints(tmp_path: Path) -> None:
    models = open_models(tmp_path)
    assert models.names == ("add", "sort", "text")
    assert models.layout.layer_count == LAYERS
    assert set(models.fingerprints) == {"base", "expert:add", "expert:sort", "expert:text"}
    assert len(set(models.fingerprints.values())) == 4
    name = "model.layers.2.mlp.up_proj.weight"
    base, experts = models.stack(name)
    assert torch.equal(base, load_file(tmp_path / "base" / SINGLE)[name])
    assert [torch.equal(x, load_file(tmp_path / n / SINGLE)[name]) for x, n in zip(experts, models.names, strict=True)]
    assert list(models.expert_fingerprints) == [models.fingerprints[f"expert:{n}"] for n in models.names]


def test_order_and_names_of_experts_do_not_matter_to_the_stack(tmp_path: Path) -> None:
    base, experts = write_models(tmp_path)
    turned = ModelSet.open(base, dict(reversed(experts.items())))
    assert turned.names == ModelSet.open(base, experts).names


def test_experts_may_have_another_dtype_and_sharding(tmp_path: Path) -> None:
    base = tiny_llama()
    base.save_pretrained(tmp_path / "base")
    fine_tuned(base, 1).to(torch.bfloat16).save_pretrained(tmp_path / "x", max_shard_size="50KB")
    models = ModelSet.open(tmp_path / "base", {"x": tmp_path / "x"})
    assert models.stack("model.norm.weight").experts[0].dtype == torch.bfloat16


def change(path: Path, how: Callable[[Tensors], object]) -> None:
    tensors = load_file(path / SINGLE)
    how(tensors)
    save_file(tensors, path / SINGLE, {"format": "pt"})


NORM = "model.norm.weight"


@pytest.mark.parametrize(
    ("how", "problem", "remedy"),
    [
        (lambda t: t.pop(NORM), f"lacks the base's tensor {NORM}", "use fine-tunes of this base"),
        (lambda t: t.update(extra=torch.ones(2)), "has the tensor extra, which the base lacks", "use fine-tunes"),
        (lambda t: t.update({NORM: torch.ones(33)}), f"has {NORM} of shape [33] where the base has [32]", "use fine-"),
        (lambda t: t.update({NORM: torch.ones(32, dtype=torch.int8)}), f"stores {NORM} as torch.int8", "floating"),
    ],
)
def test_misfits_are_named(tmp_path: Path, how: Callable[[Tensors], object], problem: str, remedy: str) -> None:
    base, experts = write_models(tmp_path)
    change(experts["sort"], how)
    with pytest.raises(InvalidModel) as info:
        ModelSet.open(base, experts)
    message = str(info.value)
    assert message.startswith(f"models.experts[1]: '{experts['sort']}' {problem}")
    assert remedy in message.split("; ", 1)[1]


def test_another_vocabulary_without_tokens_to_go_by_is_refused(tmp_path: Path) -> None:
    base, experts = write_models(tmp_path, experts=1)
    tiny_llama(vocab=62).save_pretrained(experts["add"])
    with pytest.raises(InvalidModel, match=r"tokenizer.json.* holds no vocabulary that can be read"):
        ModelSet.open(base, experts)


@pytest.mark.parametrize("tied", [True, False])
def test_differing_ties_are_refused(tmp_path: Path, tied: bool) -> None:
    tiny_llama(tied=tied).save_pretrained(tmp_path / "base")
    tiny_llama(tied=not tied).save_pretrained(tmp_path / "x")
    with pytest.raises(
        InvalidModel, match=r"lm_head.weight.* \(tie_word_embeddings is .* in the base\); save both with the same tie"
    ):
        ModelSet.open(tmp_path / "base", {"x": tmp_path / "x"})


def test_callers_keys_are_used(tmp_path: Path) -> None:
    base, _ = write_models(tmp_path, experts=1)
    with pytest.raises(InvalidModel, match=r"^experts.gone: .*does not exist"):
        ModelSet.open(base, {"gone": tmp_path / "gone"}, expert_keys=["experts.gone"])
    with pytest.raises(InvalidModel, match=r"^base: "):
        ModelSet.open(tmp_path / "gone", {}, base_key="base")
