"""Generated texts are stock's on every kind of model: rotary, learned and no positions, sliding windows, experts."""

import random
from typing import Any

import pytest
import torch
import transformers

from evaluation.lm.gencheck import lanes_agree
from evaluation.lm.genrules import obstacle
from evaluation.lm.resident import ResidentLM
from tests.evaluation.lm.test_generation import UNTIL, Ask, passes, requests, stock
from tests.evaluation.tiny import WORDS

_ALL = {"vocab_size": 31, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "initializer_range": 0.3}
_USUAL = _ALL | {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 96}
_ROTARY = _USUAL | {"intermediate_size": 64, "num_key_value_heads": 1}
_GPT = _ALL | {"n_positions": 96, "n_embd": 32, "n_layer": 2, "n_head": 2}
_GEMMA = _ROTARY | {"head_dim": 16, "sliding_window": 8}
KINDS: dict[str, dict[str, Any]] = {
    "Llama": _ROTARY,
    "Qwen2": _ROTARY,
    "Mistral": _ROTARY | {"sliding_window": 8},
    "Gemma2": _GEMMA | {"final_logit_softcapping": 5.0},
    "Gemma3Text": _GEMMA,
    "Qwen3Moe": _ROTARY | {"head_dim": 16, "moe_intermediate_size": 16, "num_experts": 4, "num_experts_per_tok": 2},
    "GPT2": _GPT,
    "GPTNeoX": _USUAL | {"intermediate_size": 64},
    "OPT": _USUAL | {"ffn_dim": 64, "word_embed_proj_dim": 32, "init_std": 0.3},
    "Bloom": _ALL | {"hidden_size": 32, "n_layer": 2, "n_head": 2},
    "Falcon": _USUAL | {"alibi": True},
    "Mpt": _ALL | {"d_model": 32, "n_heads": 2, "n_layers": 2, "max_seq_len": 96},
    "Mamba": _ALL | {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4},
}


def build(kind: str) -> Any:
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**KINDS[kind])
    model = transformers.AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)
    for parameter in model.parameters():
        if parameter.ndim == 1:  # biases of zero would hide where a bias is left out
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def asked() -> list[Ask]:
    rng = random.Random(0)

    def text(most: int) -> str:
        return " ".join(rng.choices([*WORDS, "Q", "A", "."], k=rng.randint(1, most)))

    stem = " ".join(rng.choices(WORDS, k=34))
    return [
        (f"{stem} {text(9)}" if i % 2 else text(30), {"until": UNTIL[i % len(UNTIL)], "max_gen_toks": 4 * (1 + i % 3)})
        for i in range(14)
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_texts_are_stock_with_and_without_guesses(kind: str, live: tuple[Any, Any]) -> None:
    model, tokenizer = build(kind), live[1]
    expected = stock(model, tokenizer, asked())
    assert len(set(expected)) > 6
    lm = ResidentLM(model, tokenizer, 5)
    with passes(model) as first:
        assert lm.generate_until(requests(asked())) == expected
    for kept in lm._generator._drafts._answers.values():
        answer = kept[0].tolist()
        kept[0] = type(kept[0])("i", [*answer[: len(answer) // 2], 9, 9, 9, 9])
    with passes(model) as second:
        assert lm.generate_until(requests(asked())) == expected
    with passes(model) as third:
        assert lm.generate_until(requests(asked())) == expected
    if kind == "Mamba":  # its state cannot be taken back
        assert len(first) == len(second) == len(third)
    else:
        assert len(third) == 5 < len(second) < len(first)  # a shared beginning, twice two batches of five and less


def test_the_check_finds_a_model_that_ignores_its_padding() -> None:
    model = build("Llama")
    assert lanes_agree(model) is True
    forward = model.model.forward

    def blind(*args: Any, attention_mask: Any = None, **kwargs: Any) -> Any:
        return forward(*args, attention_mask=None, **kwargs)

    model.model.forward = blind
    assert lanes_agree(model) is False


def test_the_check_finds_a_model_that_ignores_its_positions(live: tuple[Any, Any]) -> None:
    model = build("Llama")
    forward = model.model.forward

    def unplaced(*args: Any, position_ids: Any = None, **kwargs: Any) -> Any:
        return forward(*args, position_ids=None, **kwargs)

    model.model.forward = unplaced
    assert lanes_agree(model) is False
    model.model.forward = forward
    asking = asked()[:3]
    model.model.forward = unplaced
    texts = ResidentLM(model, live[1], 1).generate_until(requests(asking))
    assert texts == stock(model, live[1], asking)


def test_the_check_says_nothing_of_weights_that_tell_nothing() -> None:
    model = build("GPT2")
    kept = model.transformer.ln_f.weight.clone()
    for value in (float("inf"), 0.0):
        model.transformer.ln_f.weight.fill_(value)
        assert lanes_agree(model) is None
    model.transformer.ln_f.weight.copy_(kept)
    for name, weight in model.named_parameters():
        if "attn.c_proj" in name:  # nothing before the last token counts
            weight.zero_()
    model.transformer.wpe.weight.zero_()
    assert lanes_agree(model) is None


def test_a_model_that_fails_on_its_cache_is_stock_own(live: tuple[Any, Any]) -> None:
    model = build("GPT2")
    expected = stock(model, live[1], asked()[:1])
    forward = model.transformer.forward

    def fussy(*args: Any, past_key_values: Any = None, **kwargs: Any) -> Any:
        if past_key_values is not None and args[0].shape[0] == 2:
            raise ValueError("one row at a time")
        return forward(*args, past_key_values=past_key_values, **kwargs)

    model.transformer.forward = fussy
    assert ResidentLM(model, live[1], 4).generate_until(requests(asked()[:1])) == expected


@pytest.mark.parametrize(
    ("kind", "changes", "reason"),
    [
        ("Llama", {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}}, "length"),
        ("Llama", {}, None),
        ("Gemma3Text", {}, None),
        ("Mamba", {}, "prepare_inputs_for_generation"),
        ("Qwen3Next", {"layer_types": ["linear_attention", "full_attention"]}, "other state"),
    ],
)
def test_what_the_loop_may_not_run_is_told_by_its_kind(kind: str, changes: dict[str, Any], reason: str | None) -> None:
    config = getattr(transformers, f"{kind}Config")(**KINDS.get(kind, _ROTARY) | changes)
    with torch.device("meta"):
        told = obstacle(transformers.AutoModelForCausalLM.from_config(config))
    assert (told is None) if reason is None else (told is not None and reason in told)
