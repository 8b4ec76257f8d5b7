"""Adapters of peft, opened: every tensor and the logits are those of peft's own merge; what does not fit is refused."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from merging.adapters.dora import Dora
from merging.adapters.opening import WEIGHTS, Adapter, scaled
from merging.checkpoint import Checkpoint
from merging.codecs.lowrank import LowRank
from merging.codecs.whole import Whole
from merging.errors import InvalidModel
from tests.merging.adapters.real import (
    ATTENTION,
    EVERY,
    adapted,
    applied,
    close,
    loaded,
    logits,
    merged_by_peft,
    reconfigure,
    renamed,
    rewrite,
    saved,
    tiny_gpt2,
)
from tests.merging.factories import tiny_llama

Change = Callable[[dict[str, Tensor]], dict[str, Tensor]]
LLAMA: dict[str, dict[str, Any]] = {
    "lora": {"target_modules": EVERY},
    "rslora": {"target_modules": ATTENTION, "use_rslora": True},
    "dora": {"target_modules": EVERY, "use_dora": True},
    "rsdora": {"target_modules": ["q_proj"], "use_dora": True, "use_rslora": True, "rank_pattern": {"q_proj": 3}},
    "patterns": {
        "target_modules": EVERY,
        "rank_pattern": {"layers.1.mlp.up_proj": 7, r".*\.[02]\.self_attn\..*": 2, "^model.layers.3.mlp.down_proj": 5},
        "alpha_pattern": {r"layers\.3.*": 0.5, "up_proj": 32},  # the first that matches counts; saving sorts them
    },
    "some layers": {"target_modules": ["v_proj", "up_proj"], "layers_to_transform": [1, 3]},
    "by expression": {"target_modules": r".*\.[13]\.mlp\.(gate|down)_proj"},
    "modules_to_save": {"target_modules": ["q_proj"], "modules_to_save": ["norm", "lm_head", "mlp"]},
    "embeddings": {"target_modules": ["embed_tokens", "lm_head", "q_proj"]},
    "dora of embeddings": {"target_modules": ["embed_tokens", "lm_head"], "use_dora": True},
    "no biases": {"target_modules": ["q_proj"], "bias": "all"},
    "high rank": {"target_modules": ["k_proj"], "r": 40},
    "orthogonal": {"target_modules": ["k_proj"], "init_lora_weights": "orthogonal"},
}
GPT2: dict[str, dict[str, Any]] = {
    "lora": {"target_modules": ["c_attn", "c_proj", "c_fc"], "fan_in_fan_out": True},
    "dora": {"target_modules": ["c_attn", "c_proj"], "use_dora": True, "fan_in_fan_out": True},
    "flag unset": {"target_modules": ["c_proj"]},
    "biases": {"target_modules": ["c_attn"], "bias": "lora_only", "fan_in_fan_out": True},
    "all biases": {"target_modules": ["c_attn"], "bias": "all", "fan_in_fan_out": True},
    "embeddings": {"target_modules": ["wte", "wpe", "c_fc"], "fan_in_fan_out": True},
    "modules_to_save": {"target_modules": ["c_attn"], "modules_to_save": ["ln_1", "wpe", "h.1.mlp"]},
}


def agrees_with_peft(model: Any, folder: Path, settings: dict[str, Any]) -> Adapter:
    """Asserts that tensors and logits are peft's."""
    base, inside = saved(model, folder / "base"), adapted(model, folder / "lora", **settings)
    adapter = Adapter(folder / "lora", base)
    mine, theirs = applied(base, adapter.deltas), merged_by_peft(inside)
    close(mine, theirs)
    changed = {name for name in base.names if not torch.equal(mine[name], base.tensor(name))}
    assert changed and changed <= set(adapter.names) == set(adapter.deltas)
    assert_close(logits(loaded(model, mine)), logits(inside), rtol=1e-5, atol=1e-5)
    assert (logits(inside) - logits(model.eval())).abs().max() > 1e-3
    return adapter


@pytest.mark.parametrize("kind", LLAMA)
def test_a_llama_is_what_peft_makes_of_it(kind: str, tmp_path: Path) -> None:
    agrees_with_peft(tiny_llama(), tmp_path, LLAMA[kind])


@pytest.mark.filterwarnings("ignore:fan_in_fan_out")
@pytest.mark.parametrize("kind", GPT2)
def test_a_gpt2_is_what_peft_makes_of_it(kind: str, tmp_path: Path) -> None:
    agrees_with_peft(tiny_gpt2(), tmp_path, GPT2[kind])


def test_each_tensor_has_the_form_that_says_what_was_trained(tmp_path: Path) -> None:
    settings = {"target_modules": ["q_proj"], "modules_to_save": ["model.norm"], "lora_alpha": 8}
    deltas = agrees_with_peft(tiny_llama(), tmp_path / "a", settings).deltas
    kinds = {name: type(packed) for name, packed in deltas.items()}
    queries = {f"model.layers.{i}.self_attn.q_proj.weight": LowRank for i in range(4)}
    assert kinds == queries | {"model.norm.weight": Whole}
    deltas = agrees_with_peft(
        tiny_llama(), tmp_path / "b", settings | {"use_dora": True, "modules_to_save": None}
    ).deltas
    assert {type(packed) for packed in deltas.values()} == {Dora}
    assert next(iter(deltas.values())).payload["magnitude"].shape == (32,)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_factors_stay_in_their_dtype_where_it_holds_the_scale(dtype: torch.dtype, tmp_path: Path) -> None:
    base = saved(tiny_llama(), tmp_path / "base")
    for alpha, exact in ((8, True), (6, False)):
        inside = adapted(tiny_llama(), tmp_path / str(alpha), dtype=dtype, target_modules=EVERY, lora_alpha=alpha)
        adapter = Adapter(tmp_path / str(alpha), base)
        for packed in adapter.deltas.values():
            assert {t.dtype for t in packed.payload.values()} == ({dtype} if exact else {dtype, torch.float32})
        close(applied(base, adapter.deltas), merged_by_peft(inside))


def test_a_scale_goes_into_the_smaller_factor() -> None:
    up, down = torch.ones(3, 2), torch.ones(2, 5)
    left, right = scaled(up, down, 1.5)
    assert torch.equal(left, up * 1.5) and right is down
    left, right = scaled(down.mT, up.mT, 1.5)
    assert torch.equal(right, up.mT * 1.5) and torch.equal(left, down.mT)
    assert scaled(up, down, 1.0) == (up, down)
    wide = torch.full((2, 1), 1e-12, dtype=torch.float64) + 1.0
    assert scaled(wide, torch.ones(1, 3, dtype=torch.float64), 3.0)[0].dtype == torch.float64


def with_name(own: str) -> Callable[[str], str]:
    """Puts the adapter's own name where training has it."""
    return lambda name: re.sub(r"(lora_[AB]|lora_\w+_vector)(?=$|\.)", rf"\1.{own}", name)


SPELLINGS: dict[str, Callable[[str], str]] = {
    "no prefix": lambda name: name.removeprefix("base_model.model."),
    "distributed": lambda name: f"module.{name}",
    "compiled": lambda name: name.replace("base_model.model.", "base_model.model._orig_mod."),
    "raw modules_to_save": lambda name: name.replace("model.norm.weight", "model.norm.modules_to_save.default.weight"),
    "its default name": with_name("default"),
    "a name of its own": with_name("my_skill"),
    "norms as modules": lambda name: re.sub(r"vector$", "vector.weight", name),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_other_spellings_of_names_are_the_same_adapter(spelling: str, tmp_path: Path) -> None:
    base = saved(tiny_llama(), tmp_path / "base")
    adapted(tiny_llama(), tmp_path / "lora", target_modules=["q_proj"], modules_to_save=["norm"], use_dora=True)
    before = Adapter(tmp_path / "lora", base)
    plain, digest = applied(base, before.deltas), before.fingerprint()
    rewrite(tmp_path / "lora", lambda held: {SPELLINGS[spelling](name): t for name, t in held.items()})
    after = Adapter(tmp_path / "lora", base)
    assert all(torch.equal(tensor, plain[name]) for name, tensor in applied(base, after.deltas).items())
    assert after.fingerprint() == digest


@pytest.mark.parametrize(
    "rename",
    [
        lambda name: name.removeprefix("model."),
        lambda name: f"outer.{name}",
        lambda name: name.replace("model.", "language_model.text.", 1),
    ],
    ids=["prefix missing", "prefix added", "prefix replaced"],
)
def test_the_checkpoint_may_call_tensors_by_another_prefix(rename: Callable[[str], str], tmp_path: Path) -> None:
    saved(tiny_llama(), tmp_path / "base")
    tables = ["embed_tokens", "lm_head"]
    inside = adapted(tiny_llama(), tmp_path / "lora", target_modules=["q_proj", *tables], modules_to_save=["norm"])
    base = renamed(tmp_path / "base", tmp_path / "other", rename)
    back = {rename(name): name for name in tiny_llama().state_dict()}
    close(applied(base, Adapter(tmp_path / "lora", base).deltas), merged_by_peft(inside), back)


def test_layers_are_never_mistaken_for_one_another(tmp_path: Path) -> None:
    saved(tiny_llama(), tmp_path / "base")
    one_layer = renamed(tmp_path / "base", tmp_path / "one", lambda name: name)
    kept = {n for n in one_layer.names if "layers" not in n or "layers.0" in n}
    base = tmp_path / "short"
    renamed(tmp_path / "base", base, lambda name: name if name in kept else f"unused.{name.replace('.', '_')}")
    adapted(tiny_llama(), tmp_path / "lora", target_modules=["q_proj"], layers_to_transform=[2])
    with pytest.raises(InvalidModel, match=r"base has no tensor model\.layers\.2\.self_attn\.q_proj\.weight"):
        Adapter(tmp_path / "lora", Checkpoint(base))


TIED: dict[str, dict[str, Any]] = {
    "both by LoRA": {"target_modules": ["embed_tokens", "q_proj"], "ensure_weight_tying": True},
    "both whole": {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"], "ensure_weight_tying": True},
}
TORN: dict[str, dict[str, Any]] = {
    "embedding by LoRA": {"target_modules": ["embed_tokens"]},
    "head by LoRA": {"target_modules": ["lm_head"]},
    "embedding whole": {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]},
    "head whole": {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
    "each in its way": {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens", "lm_head"]},
}


@pytest.mark.parametrize("kind", TIED)
def test_a_tied_head_is_changed_with_its_embedding(kind: str, tmp_path: Path) -> None:
    model = tiny_llama(tied=True)
    base, inside = saved(model, tmp_path / "base"), adapted(model, tmp_path / "lora", **TIED[kind])
    mine = applied(base, Adapter(tmp_path / "lora", base).deltas)
    assert not torch.equal(mine["model.embed_tokens.weight"], base.tensor("model.embed_tokens.weight"))
    mine["lm_head.weight"] = mine["model.embed_tokens.weight"]
    assert_close(logits(loaded(model, mine)), logits(inside), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", TORN)
def test_one_of_two_tied_tensors_cannot_change_alone(kind: str, tmp_path: Path) -> None:
    model = tiny_llama(tied=True)
    base, inside = saved(model, tmp_path / "base"), adapted(model, tmp_path / "lora", **TORN[kind])
    with pytest.raises(InvalidModel, match=r"only one of two tensors that the base ties.*head of its own"):
        Adapter(tmp_path / "lora", base)
    free = tiny_llama()
    free.load_state_dict(model.state_dict())
    own = saved(free, tmp_path / "untied")  # what the message says to do
    mine = applied(own, Adapter(tmp_path / "lora", own).deltas)
    assert_close(logits(loaded(free, mine)), logits(inside), rtol=1e-5, atol=1e-5)


def test_a_config_that_says_nothing_of_ties_has_them_where_there_is_a_head_without_tensors(tmp_path: Path) -> None:
    model = tiny_llama(tied=True)
    saved(model, tmp_path / "base")
    adapted(model, tmp_path / "lora", target_modules=["embed_tokens"])
    path = tmp_path / "base" / "config.json"
    config = {key: value for key, value in json.loads(path.read_text()).items() if key != "tie_word_embeddings"}
    path.write_text(json.dumps(config))
    with pytest.raises(InvalidModel, match="only one of two tensors that the base ties"):
        Adapter(tmp_path / "lora", Checkpoint(tmp_path / "base"))
    path.write_text(json.dumps(config | {"architectures": ["LlamaModel"]}))  # which has no head
    assert Adapter(tmp_path / "lora", Checkpoint(tmp_path / "base")).names == ("model.embed_tokens.weight",)


def test_the_fingerprint_says_what_it_computes(tmp_path: Path) -> None:
    base = saved(tiny_llama(), tmp_path / "base")
    adapted(tiny_llama(), tmp_path / "lora", target_modules=["q_proj"])
    reconfigure(tmp_path / "lora", base_model_name_or_path="some/base")
    adapter = Adapter(tmp_path / "lora", base)
    digest = adapter.fingerprint()
    assert re.fullmatch("[0-9a-f]{32}", digest) and adapter.base_name == "some/base"
    reconfigure(tmp_path / "lora", base_model_name_or_path=None, lora_dropout=0.5)
    assert (
        Adapter(tmp_path / "lora", base).fingerprint() == digest and Adapter(tmp_path / "lora", base).base_name is None
    )
    reconfigure(tmp_path / "lora", lora_alpha=7)
    assert Adapter(tmp_path / "lora", base).fingerprint() != digest
    reconfigure(tmp_path / "lora", lora_alpha=6)
    rewrite(tmp_path / "lora", lambda held: {name: tensor + 1e-3 for name, tensor in held.items()})
    assert Adapter(tmp_path / "lora", base).fingerprint() != digest


class Cache(dict[str, str]):
    """A cache of fingerprints in memory."""

    def put(self, key: str, fingerprint: str) -> None:
        self[key] = fingerprint


def test_a_fingerprint_is_remembered_until_a_file_changes(tmp_path: Path) -> None:
    base, cache = saved(tiny_llama(), tmp_path / "base"), Cache()
    adapted(tiny_llama(), tmp_path / "lora", target_modules=["q_proj"])
    first = Adapter(tmp_path / "lora", base).fingerprint(cache)
    assert list(cache.values()) == [first]
    cache.update(dict.fromkeys(cache, "remembered"))
    assert Adapter(tmp_path / "lora", base).fingerprint(cache) == "remembered"
    reconfigure(tmp_path / "lora", lora_alpha=77)
    assert Adapter(tmp_path / "lora", base).fingerprint(cache) not in ("remembered", first)


def test_numbers_that_are_not_finite_are_found_when_they_are_read(tmp_path: Path) -> None:
    base = saved(tiny_llama(), tmp_path / "base")
    adapted(tiny_llama(), tmp_path / "lora", target_modules=["q_proj"])
    name = "base_model.model.model.layers.2.self_attn.q_proj.lora_B.weight"

    def break_one(held: dict[str, Tensor]) -> dict[str, Tensor]:
        held[name][3, 1] = float("inf")
        return held

    rewrite(tmp_path / "lora", break_one)
    with pytest.raises(InvalidModel, match=f"models.experts.0.*NaN or infinity in tensor {re.escape(name)}"):
        Adapter(tmp_path / "lora", base, "models.experts[0]").fingerprint()


def only(part: str) -> Change:
    return lambda held: {name: tensor for name, tensor in held.items() if part in name}


def instead(part: str, change: Callable[[Tensor], Tensor]) -> Change:
    return lambda held: {name: change(tensor) if part in name else tensor for name, tensor in held.items()}


def beside(name: str, tensor: Tensor) -> Change:
    return lambda held: held | {name: tensor}


INNER = "base_model.model.model.layers.0."
DAMAGED: dict[str, tuple[Change, str]] = {
    "a factor missing": (only("lora_A"), "holds lora_A alone for model.layers.0.self_attn.q_proj"),
    "norms without DoRA": (
        beside(INNER + "self_attn.q_proj.lora_magnitude_vector", torch.ones(32)),
        "is a LoRA without DoRA, but holds lora_A, lora_B, lora_magnitude_vector",
    ),
    "another width": (instead("q_proj.lora_A", lambda t: t[:, :20]), r"has \[32, 20\].*base has \[32, 32\]"),
    "another rank": (instead("lora_", lambda t: t[:2] if t.shape[0] == 4 else t[:, :2]), "for a rank of 4"),
    "a convolution's": (instead("lora_", lambda t: t[..., None, None]), "a convolution's"),
    "another module": (beside(INNER + "self_attn.r_proj.lora_A.weight", torch.ones(4, 32)), "holds lora_A alone"),
    "no tensor of the base": (beside("base_model.model.score.weight", torch.ones(2, 32)), "no tensor score.weight"),
    "another variant": (
        beside(INNER + "self_attn.q_proj.lora_diag", torch.ones(4)),
        "no variant of LoRA that is known",
    ),
    "a bias of LoRA": (beside(INNER + "self_attn.q_proj.lora_B.bias", torch.ones(32)), "no variant of LoRA"),
    "whole numbers": (instead("lora_A", lambda t: t.to(torch.int32)), r"lora_A\.weight as torch\.int32"),
    "two adapters": (
        beside(INNER + "self_attn.q_proj.lora_A.other.weight", torch.ones(4, 32)),
        "beside base_model.model.model.layers.0.self_attn.q_proj.lora_A.other.weight",
    ),
    "a vocabulary of another size": (
        beside("base_model.model.model.embed_tokens.weight", torch.ones(64, 32)),
        r"has \[64, 32\] for model.embed_tokens.weight, where the base has \[61, 32\]; the vocabularies differ",
    ),
    "another base": (
        beside("base_model.model.model.embed_tokens.base_layer.weight", torch.ones(61, 32)),
        "trained on another base",
    ),
    "a norm of whole numbers": (
        beside("base_model.model.model.norm.weight", torch.ones(32, dtype=torch.int64)),
        "another kind of number",
    ),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_what_does_not_fit_is_refused(damage: str, tmp_path: Path) -> None:
    base = saved(tiny_llama(), tmp_path / "base")
    adapted(tiny_llama(), tmp_path / "lora", target_modules=["q_proj"])
    change, message = DAMAGED[damage]
    rewrite(tmp_path / "lora", change)
    with pytest.raises(InvalidModel, match=f"^models.experts.1.: '.*lora' .*{message}"):
        Adapter(tmp_path / "lora", base, "models.experts[1]")


def test_biases_that_were_trained_but_not_stored_are_refused(tmp_path: Path) -> None:
    base = saved(tiny_gpt2(), tmp_path / "base")
    adapted(tiny_gpt2(), tmp_path / "lora", target_modules=["c_attn"], fan_in_fan_out=True)
    for bias, missing in (
        ("all", r"transformer\.h\.0\.attn\.c_attn\.bias"),
        ("lora_only", r"h\.0\.attn\.c_attn\.bias"),
    ):
        reconfigure(tmp_path / "lora", bias=bias)
        with pytest.raises(InvalidModel, match=f"trained biases .bias: {bias}., but does not store .*{missing}"):
            Adapter(tmp_path / "lora", base)


def test_an_adapter_of_another_model_is_refused(tmp_path: Path) -> None:
    base = saved(tiny_llama(), tmp_path / "base")
    adapted(tiny_gpt2(), tmp_path / "lora", target_modules=["c_attn"], fan_in_fan_out=True)
    with pytest.raises(InvalidModel, match=r"base has no tensor transformer\.h\.0\.attn\.c_attn\.weight"):
        Adapter(tmp_path / "lora", base)


def test_pickles_are_never_opened(tmp_path: Path) -> None:
    base = saved(tiny_llama(), tmp_path / "base")
    adapted(tiny_llama(), tmp_path / "lora", target_modules=["q_proj"])
    (tmp_path / "lora" / WEIGHTS).rename(tmp_path / "lora" / "adapter_model.bin")
    with pytest.raises(InvalidModel, match=r"is a pickled adapter \(adapter_model.bin\); load it with peft"):
        Adapter(tmp_path / "lora", base)
    (tmp_path / "lora" / "adapter_model.bin").unlink()
    with pytest.raises(InvalidModel, match="without weights"):
        Adapter(tmp_path / "lora", base)


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    base = saved(tiny_llama(), tmp_path / "base")
    adapted(tiny_llama(), tmp_path / "lora", target_modules=["q_proj"])
    content = (tmp_path / "lora" / WEIGHTS).read_bytes()
    (tmp_path / "lora" / WEIGHTS).write_bytes(content[:-8])
    with pytest.raises(InvalidModel, match="is truncated"):
        Adapter(tmp_path / "lora", base)


def test_a_row_of_zeros_stays_zero() -> None:
    base = torch.tensor([[0.0, 0.0], [3.0, 4.0]])
    packed = Dora(torch.zeros(2, 1), torch.zeros(1, 2), torch.tensor([2.0, 10.0]))
    assert torch.equal(packed.expert(base), torch.tensor([[0.0, 0.0], [6.0, 8.0]]))
    turned = Dora(torch.zeros(2, 1), torch.zeros(1, 2), torch.tensor([2.0, 10.0]), transposed=True)
    assert torch.equal(turned.expert(base.mT), torch.tensor([[0.0, 6.0], [0.0, 8.0]]))
    assert turned.shape == (2, 2) and turned.numbers == {"transposed": 1}
    assert torch.equal(turned.moved(torch.clone).expert(base.mT), turned.expert(base.mT))
