"""The live model and its tensors by checkpoint name."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    Qwen3MoeConfig,
)

from evaluation.live import check_loads, live_tensors, load_live
from merging.errors import InvalidModel
from tests.evaluation.conftest import Tiny

SMALL: dict[str, Any] = {
    "vocab_size": 40,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
}


def _names(folder: Path) -> list[str]:
    with safe_open(folder / "model.safetensors", "pt") as file:
        return list(file.keys())


def test_a_loaded_model_is_ready_to_be_overwritten(tiny: Tiny) -> None:
    model, tokenizer = load_live(tiny.model, "cpu", "bfloat16")
    assert not model.training and model.dtype == torch.bfloat16
    assert not any(p.requires_grad for p in model.parameters())
    assert tokenizer("ba")["input_ids"] == [7]
    assert load_live(tiny.model, "cpu")[0].dtype == torch.float32


def test_loading_prints_nothing(tiny: Tiny, capfd: pytest.CaptureFixture[str]) -> None:
    load_live(tiny.model, "cpu")
    assert capfd.readouterr() == ("", "")


def test_tensors_are_the_models_own_and_tied_ones_come_once(tiny: Tiny, live: tuple[Any, Any]) -> None:
    model, _ = live
    names = _names(tiny.model)
    tensors = live_tensors(model, names)
    assert sorted(tensors) == sorted(names)
    assert "lm_head.weight" not in tensors
    assert tensors["model.embed_tokens.weight"].data_ptr() == model.lm_head.weight.data_ptr()
    with safe_open(tiny.model / "model.safetensors", "pt") as file:
        assert all(torch.equal(file.get_tensor(name), tensors[name]) for name in names)
    # some checkpoints store both names of a tied tensor, and rotary tables of old
    extra = ["lm_head.weight", "model.layers.0.self_attn.rotary_emb.inv_freq"]
    assert live_tensors(model, [*extra, *names]).keys() == tensors.keys()


def test_untied_heads_are_two_tensors() -> None:
    model = LlamaForCausalLM(LlamaConfig(**SMALL, tie_word_embeddings=False))
    names = list(model.state_dict())
    assert sorted(live_tensors(model, names)) == sorted(names)


def test_names_without_the_models_prefix_are_found(tmp_path: Path) -> None:
    # GPT-2's published checkpoint says h.0.attn... where the model says transformer.h.0.attn...
    model = GPT2LMHeadModel(GPT2Config(vocab_size=40, n_embd=16, n_layer=2, n_head=2, n_positions=16))
    model.save_pretrained(tmp_path)
    bare = {name.removeprefix("transformer."): t for name, t in model.transformer.state_dict().items()}
    save_file({name: t.contiguous() for name, t in bare.items()}, tmp_path / "model.safetensors", {"format": "pt"})
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    tensors = live_tensors(loaded, list(bare))
    assert sorted(tensors) == sorted(bare)
    assert all(torch.equal(tensors[name], bare[name]) for name in bare)


def test_writing_a_tensor_changes_what_the_model_computes() -> None:
    model = LlamaForCausalLM(LlamaConfig(**SMALL, tie_word_embeddings=True)).eval().requires_grad_(False)
    ids = torch.tensor([[1, 2, 3]])
    tensors = live_tensors(model, [n for n in model.state_dict() if n != "lm_head.weight"])
    for name, tensor in tensors.items():
        before = model(ids).logits
        kept = tensor.clone()
        tensor.add_(torch.randn(tensor.shape))
        assert not torch.equal(model(ids).logits, before), name
        tensor.copy_(kept)
        assert torch.equal(model(ids).logits, before)


@pytest.mark.parametrize(
    ("config", "moe"),
    [(MixtralConfig, {"num_local_experts": 3}), (Qwen3MoeConfig, {"num_experts": 3, "moe_intermediate_size": 24})],
)
def test_experts_that_transformers_fuses_are_views(config: Any, moe: dict[str, int], tmp_path: Path) -> None:
    fused = AutoModelForCausalLM.from_config(config(**SMALL, **moe, head_dim=8))
    fused.save_pretrained(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path).requires_grad_(False)
    names = _names(tmp_path)
    assert any(".experts.2." in name for name in names)
    tensors = live_tensors(model, names)
    assert sorted(tensors) == sorted(names)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        for name in names:
            assert torch.equal(file.get_tensor(name), tensors[name]), name
            tensors[name].zero_()
    assert all(not parameter.any() for parameter in model.parameters())
    with pytest.raises(InvalidModel, match="do not fill"):
        live_tensors(model, [name for name in names if ".experts.2." not in name])


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (
            lambda names: [*names, "model.layers.0.extra.weight"],
            "extra.weight' is a tensor of the checkpoint",
        ),
        (lambda names: names[1:], "that the names in the checkpoint do not fill"),
    ],
)
def test_names_that_do_not_match_are_refused(tiny: Tiny, live: tuple[Any, Any], change: Any, problem: str) -> None:
    with pytest.raises(InvalidModel, match=problem):
        live_tensors(live[0], change(_names(tiny.model)))


def test_what_loads_can_be_told_without_reading_weights(tiny: Tiny) -> None:
    names = _names(tiny.model)
    check_loads(tiny.model, names)
    with pytest.raises(InvalidModel, match="do not fill"):
        check_loads(tiny.model, names[1:])


def test_folders_without_a_safe_model_are_refused(tmp_path: Path, tiny: Tiny) -> None:
    with pytest.raises(InvalidModel, match=r"models\.base: .*nowhere.* cannot be loaded"):
        load_live(tmp_path / "nowhere", "cpu")
    pickled = tmp_path / "pickled"
    pickled.mkdir()
    (pickled / "config.json").write_text((tiny.model / "config.json").read_text())
    torch.save({}, pickled / "pytorch_model.bin")
    with pytest.raises(InvalidModel, match="cannot be loaded as a causal language model"):
        load_live(pickled, "cpu")


@pytest.mark.parametrize(
    ("file", "change", "reason"),
    [
        ("config.json", {"num_attention_heads": 0}, "ZeroDivisionError"),
        ("config.json", {"num_hidden_layers": "four"}, "num_hidden_layers"),
        ("config.json", {"dtype": "float99"}, "float99"),
        ("tokenizer.json", {"model": {"type": "Telepathy", "vocab": {}}}, "Exception: data did not match any variant"),
    ],
)
def test_a_folder_with_bad_values_is_refused_on_one_short_line(
    tiny: Tiny, tmp_path: Path, file: str, change: dict[str, Any], reason: str
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny.model, folder)
    (folder / file).write_text(json.dumps(json.loads((folder / file).read_text()) | change))
    with pytest.raises(InvalidModel, match=r"models\.base: .* cannot be loaded as a causal language model") as refused:
        load_live(folder, "cpu")
    assert reason in str(refused.value)
    assert "\n" not in str(refused.value) and len(refused.value.problem) < 360


def test_a_long_reason_is_cut_and_lack_of_memory_is_not_the_folders_fault(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    def raises(error: Exception) -> None:
        def load(*_: Any, **__: Any) -> None:
            raise error

        monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", load)

    raises(Exception("many\nwords " * 100))
    with pytest.raises(InvalidModel, match=r"\(Exception: many words many .*\.\.\.\)") as refused:
        load_live(tiny.model, "cpu")
    assert len(refused.value.problem) < 360
    for full in (torch.OutOfMemoryError("full"), MemoryError("full")):
        raises(full)
        with pytest.raises(type(full)):
            load_live(tiny.model, "cpu")
    raises(InvalidModel("models.base", "x", "is not finite", "mend it"))
    with pytest.raises(InvalidModel, match="is not finite"):
        load_live(tiny.model, "cpu")
