"""Adapters as we write them, loaded by stock peft and by ourselves: the same logits; how much of a delta they hold."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from merging.adapters.export import Pair, adapter_of, write_adapter
from merging.adapters.opening import Adapter
from merging.checkpoint import Checkpoint
from merging.errors import InvalidModel, OutputError
from merging.roles import role
from tests.merging.adapters.real import adapted, applied, loaded, logits, peft, quietly, renamed, saved, tiny_gpt2
from tests.merging.factories import tiny_llama, write_tensors

ABOUT = {"task_type": "CAUSAL_LM", "base_model_name_or_path": "some/base"}


def noise(base: Checkpoint, *parts: str, seed: int = 0) -> dict[str, Tensor]:
    """A change of every tensor whose name has one of these parts."""
    generator = torch.Generator().manual_seed(seed)
    names = [name for name in base.names if any(part in name for part in parts)]
    return {name: 0.05 * torch.randn(base.entry(name).shape, generator=generator) for name in names}


def ranks(base: Checkpoint, *parts: str) -> dict[str, Pair]:
    """Factors of these tensors, of ranks 1, 2, 3, 1 …"""
    found = {}
    for i, (name, tensor) in enumerate(noise(base, *parts).items()):
        rank = 1 + i % 3
        found[name] = tensor[:, :rank].contiguous(), tensor[:rank].mul(10.0).contiguous()
    return found


def agrees(
    model: Any, base: Checkpoint, to: Path, factors: Mapping[str, Pair], whole: Mapping[str, Tensor], prefix: str = ""
) -> None:
    """Asserts that peft's model and ours say the same with the adapter, and not what they said without."""
    write_adapter(to, base, factors, whole, ABOUT, prefix)
    untouched = logits(model)
    theirs = quietly(peft.PeftModel.from_pretrained, model, to).eval()
    expected = {name: base.tensor(name).clone() for name in base.names}
    for name, (up, down) in factors.items():
        expected[name] += up @ down
    for name, delta in whole.items():
        expected[name] += delta
    mine = applied(base, Adapter(to, base).deltas)
    for name, tensor in mine.items():
        assert_close(tensor, expected[name], rtol=1e-6, atol=1e-6)
    named = {prefix + name: tensor for name, tensor in mine.items()}
    if model.config.tie_word_embeddings:
        embedding = "model.embed_tokens.weight" if model.config.model_type == "llama" else "transformer.wte.weight"
        named["lm_head.weight"] = named[embedding]
    said = logits(loaded(type(model)(model.config), named))
    assert_close(logits(theirs), said, rtol=1e-5, atol=1e-5)
    assert (said - untouched).abs().max() > 1e-3
    assert theirs.peft_config["default"].base_model_name_or_path == "some/base"


def test_factors_of_many_ranks_on_a_llama(tmp_path: Path) -> None:
    model = tiny_llama().eval()
    base = saved(model, tmp_path / "base")
    agrees(model, base, tmp_path / "lora", ranks(base, "proj", "embed", "lm_head"), {})


def test_norms_and_whole_matrices_on_a_llama(tmp_path: Path) -> None:
    model = tiny_llama().eval()
    base = saved(model, tmp_path / "base")
    whole = noise(base, "norm", "up_proj", "embed_tokens")
    agrees(model, base, tmp_path / "lora", ranks(base, "down_proj"), whole)


def test_tensors_that_are_all_whole(tmp_path: Path) -> None:
    model = tiny_llama().eval()
    base = saved(model, tmp_path / "base")
    agrees(model, base, tmp_path / "lora", {}, noise(base, "norm"))


def test_matrices_stored_input_first_with_their_biases(tmp_path: Path) -> None:
    model = tiny_gpt2().eval()
    base = saved(model, tmp_path / "base")
    whole = noise(base, "ln_", "c_attn.bias", "wpe")
    agrees(model, base, tmp_path / "lora", ranks(base, "c_attn.weight", "c_proj.weight", "wte"), whole)


@pytest.mark.parametrize("whole", [False, True])
def test_an_embedding_that_is_the_head_too(whole: bool, tmp_path: Path) -> None:
    model = tiny_llama(tied=True).eval()
    base = saved(model, tmp_path / "base")
    table = {} if whole else ranks(base, "embed_tokens")
    agrees(model, base, tmp_path / "lora", table | ranks(base, "q_proj"), noise(base, "embed_tokens") if whole else {})


def test_a_checkpoint_without_the_prefix_of_the_models_class(tmp_path: Path) -> None:
    model = tiny_llama(tied=True).eval()
    saved(model, tmp_path / "full")
    base = renamed(tmp_path / "full", tmp_path / "base", lambda name: name.removeprefix("model."))
    agrees(model, base, tmp_path / "lora", ranks(base, "q_proj"), noise(base, "post_attention"), prefix="model.")


def test_an_adapter_that_is_opened_and_written_is_the_same(tmp_path: Path) -> None:
    model = tiny_gpt2()
    base = saved(model, tmp_path / "base")
    adapted(model, tmp_path / "first", target_modules=["c_attn", "wte"], fan_in_fan_out=True)
    first = Adapter(tmp_path / "first", base)
    pairs = {name: (packed.payload["down"].mT, packed.payload["up"].mT) for name, packed in first.deltas.items()}
    write_adapter(tmp_path / "second", base, pairs, {}, {})
    second = Adapter(tmp_path / "second", base)
    assert applied(base, first.deltas).keys() == applied(base, second.deltas).keys()
    for name, tensor in applied(base, second.deltas).items():
        assert_close(tensor, applied(base, first.deltas)[name], rtol=1e-6, atol=1e-6)


def streamed(base: Checkpoint, deltas: Mapping[str, Tensor]) -> Any:
    """What `adapter_of` reads."""
    return ((name, delta, role(name, delta.shape, base.config)) for name, delta in deltas.items())


def test_a_merged_delta_becomes_an_adapter_that_says_what_it_holds(tmp_path: Path) -> None:
    model = tiny_llama().eval()
    base = saved(model, tmp_path / "base")
    deltas = {name: up @ down for name, (up, down) in ranks(base, "proj", "embed").items()}
    deltas |= noise(base, "norm", seed=1) | {"lm_head.weight": torch.zeros(61, 32)}
    found = adapter_of(streamed(base, deltas), energy=1.0 - 1e-9)
    assert {up.shape[1] for up, _ in found.factors.values()} == {1, 2, 3}
    assert set(found.whole) == {name for name in deltas if "norm" in name}
    assert set(found.kept) == set(deltas) and found.kept["lm_head.weight"].share == 1.0
    assert found.share > 1.0 - 1e-8
    agrees(model, base, tmp_path / "lora", found.factors, found.whole)
    for name, (up, down) in found.factors.items():
        assert_close(up @ down, deltas[name], rtol=1e-4, atol=1e-6)


def test_less_energy_is_a_smaller_rank_and_its_error_is_what_it_says(tmp_path: Path) -> None:
    base = saved(tiny_llama(), tmp_path / "base")
    deltas = noise(base, "down_proj")
    wanted = 0.8
    found = adapter_of(streamed(base, deltas), energy=wanted)
    lost, energy = 0.0, 0.0
    for name, delta in deltas.items():
        up, down = found.factors[name]
        lost += float((delta - up @ down).double().square().sum())
        energy += float(delta.double().square().sum())
        assert wanted <= found.kept[name].share < 0.9 and found.kept[name].rank == up.shape[1]
    assert 1.0 - lost / energy == pytest.approx(found.share, abs=1e-6)
    full = adapter_of(streamed(base, deltas), energy=1.0)
    assert not full.factors and full.share == 1.0  # 32 · 48 numbers in factors of rank 32 would be more
    ranked = adapter_of(streamed(base, deltas), energy=1.0, rank=2)
    assert {row.rank for row in ranked.kept.values()} == {2} and 0.0 < ranked.share < wanted


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "nothing": ({}, "would change nothing"),
    "another shape": ({"model.norm.weight": torch.ones(3)}, "no tensor of the base, or of another shape"),
    "another name": ({"model.other": torch.ones(3)}, "no tensor of the base"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_cannot_be_written_is_refused_and_leaves_nothing(kind: str, tmp_path: Path) -> None:
    base = saved(tiny_llama(), tmp_path / "base")
    whole, message = WRONG[kind]
    with pytest.raises(InvalidModel, match=message):
        write_adapter(tmp_path / "lora", base, {}, whole, {})
    assert [path.name for path in tmp_path.iterdir()] == ["base"]


def test_what_peft_has_no_place_for_is_refused(tmp_path: Path) -> None:
    base = saved(tiny_llama(), tmp_path / "base")
    norm, query = "model.norm.weight", "model.layers.0.self_attn.q_proj.weight"
    with pytest.raises(InvalidModel, match="weight of no linear map"):
        write_adapter(tmp_path / "a", odd_module(tmp_path), {"model.layers.0.mixer.a_proj": pair(6, 4)}, {}, {})
    with pytest.raises(InvalidModel, match="no place for both"):
        both = {"model.layers.0.mixer.b.weight": pair(6, 4)}
        write_adapter(tmp_path / "b", odd_module(tmp_path), both, {"model.layers.0.mixer.d": torch.ones(6)}, {})
    with pytest.raises(InvalidModel, match="as factors and whole"):
        write_adapter(tmp_path / "c", base, {query: pair(32, 32)}, {query: torch.ones(32, 32)}, {})
    write_adapter(tmp_path / "lora", base, {}, {norm: torch.ones(32)}, {})
    with pytest.raises(OutputError, match="exists"):
        write_adapter(tmp_path / "lora", base, {}, {norm: torch.ones(32)}, {})
    assert not list(tmp_path.glob(".*")) and not (tmp_path / "a").exists()


def pair(out: int, inputs: int) -> Pair:
    return torch.ones(out, 1), torch.ones(1, inputs)


def odd_module(folder: Path) -> Checkpoint:
    """A base with parameters that stand in a module beside others."""
    inside = {"b.weight": torch.zeros(6, 4), "d": torch.zeros(6), "a_proj": torch.zeros(6, 4)}
    return Checkpoint(write_tensors(folder / "odd", {f"model.layers.0.mixer.{n}": t for n, t in inside.items()}))
