"""adapter_config.json: scales as peft has them, and a message for everything that is no fixed change of weights."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from merging.adapters.config import AdapterConfig, read_config
from merging.errors import InvalidModel
from tests.merging.adapters.real import peft

PATTERNS = ["q_proj", r"layers\.1\..*", "^model.layers.0.self_attn.q_proj", r".*\.[02]\.mlp\.up_proj", "up_proj|q_proj"]
MODULES = [f"model.layers.{i}.{inner}" for i in range(3) for inner in ("self_attn.q_proj", "mlp.up_proj")] + ["q_proj"]


def read(folder: Path, content: Any) -> AdapterConfig:
    folder.mkdir(exist_ok=True)
    (folder / "adapter_config.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return read_config(folder, "models.experts[0]")


def test_what_is_not_said_is_pefts_default(tmp_path: Path) -> None:
    config = read(tmp_path, {"peft_type": "LORA"})
    defaults = peft.LoraConfig()
    assert (config.rank, config.alpha, config.bias) == (defaults.r, defaults.lora_alpha, defaults.bias)
    assert config == AdapterConfig(rank=8, alpha=8.0) and config.scale("any.module") == 1.0


def test_what_peft_saves_by_itself_is_accepted(tmp_path: Path) -> None:
    told = {"r": 6, "lora_alpha": 3.5, "use_rslora": True, "lora_dropout": 0.1, "init_lora_weights": "eva"}
    peft.LoraConfig(**told, eva_config=peft.EvaConfig(), base_model_name_or_path="some/base").save_pretrained(tmp_path)
    config = read_config(tmp_path, "adapter")
    assert config == AdapterConfig(rank=6, alpha=3.5, rslora=True, base_name="some/base")
    assert config.scale("x") == 3.5 / math.sqrt(6)


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(
    ranks=st.dictionaries(st.sampled_from(PATTERNS), st.integers(1, 64), max_size=4),
    alphas=st.dictionaries(st.sampled_from(PATTERNS), st.floats(0.1, 64.0), max_size=4),
    module=st.sampled_from(MODULES),
)
def test_patterns_match_as_in_peft(ranks: dict[str, int], alphas: dict[str, float], module: str) -> None:
    get_pattern_key = peft.utils.other.get_pattern_key
    config = AdapterConfig(8, 16.0, rank_patterns=ranks, alpha_patterns=alphas)
    rank = ranks.get(get_pattern_key(list(ranks), module), 8)
    assert config.rank_of(module) == rank
    assert config.scale(module) == alphas.get(get_pattern_key(list(alphas), module), 16.0) / rank


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "another kind": ({"peft_type": "LOHA"}, r"adapter_config\.peft_type: 'LOHA' is no LoRA; merge it into its base"),
    "no kind": ({"peft_type": None}, r"peft_type: is no LoRA; give a LoRA adapter"),
    "parameters": ({"target_parameters": ["experts.up"]}, r"target_parameters: \['experts.up'\] adapts parameters"),
    "biases of its own": ({"lora_bias": True}, "lora_bias: True adds to biases"),
    "repeated layers": ({"layer_replication": [[0, 2], [1, 3]]}, "layer_replication"),
    "tokens": ({"trainable_token_indices": [1]}, "trainable_token_indices"),
    "invoked": ({"alora_invocation_tokens": [1]}, "acts on a part of each text only"),
    "parallel": ({"megatron_config": {"a": 1}}, "megatron_config"),
    "pissa": ({"init_lora_weights": "pissa_niter_4"}, "path_initial_model_for_weight_conversion"),
    "olora": ({"init_lora_weights": "olora"}, "began by changing the base's own weights"),
    "quantised start": ({"init_lora_weights": "loftq", "loftq_config": {"loftq_bits": 4}}, "began by changing"),
    "block-diagonal": ({"use_bdlora": {"nblocks": 2}}, "use_bdlora: .* is a variant of LoRA that is not known"),
    "a mixture": ({"arrow_config": {"top_k": 2}}, "arrow_config: .* is a variant"),
    "of tomorrow": ({"use_something_new": True}, "use_something_new: True is a variant of LoRA that is not known here"),
    "biases": ({"bias": "some"}, "bias: 'some' is not known; use none, all or lora_only"),
    "rank 0": ({"r": 0}, "r: 0 is no rank"),
    "half a rank": ({"r": 2.5}, "r: 2.5 is no rank"),
    "alpha": ({"lora_alpha": "16"}, "lora_alpha: '16' is no number"),
    "infinite": ({"lora_alpha": math.inf}, "lora_alpha: inf is no number"),
    "a flag": ({"use_rslora": "yes"}, "use_rslora: 'yes' is neither true nor false"),
    "a name": ({"base_model_name_or_path": 3}, "base_model_name_or_path: 3 is not a name"),
    "patterns": ({"rank_pattern": ["q_proj"]}, r"rank_pattern: \['q_proj'\] is not a table"),
    "a pattern": ({"alpha_pattern": {"(": 3}}, r"alpha_pattern: '\(' is no regular expression"),
    "a pattern's rank": ({"rank_pattern": {"q_proj": True}}, r"rank_pattern\.q_proj: True is no rank"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_merged_is_refused_by_name(kind: str, tmp_path: Path) -> None:
    fields, message = REFUSED[kind]
    with pytest.raises(InvalidModel, match=rf"^models\.experts\[0\].*{message}"):
        read(tmp_path, {"peft_type": "LORA"} | fields)


def test_a_file_that_is_missing_or_damaged_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidModel, match="is no folder of an adapter"):
        read_config(tmp_path / "none", "adapter")
    with pytest.raises(InvalidModel, match=r"has no adapter_config\.json"):
        read_config(tmp_path, "adapter")
    with pytest.raises(InvalidModel, match="cannot be read"):
        read(tmp_path, '{"peft_type": ')
    with pytest.raises(InvalidModel, match="not a JSON object"):
        read(tmp_path, "[1]")
