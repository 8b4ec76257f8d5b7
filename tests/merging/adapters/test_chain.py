"""Adapters in order: what peft gives that merges one after the other."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from merging.adapters.chain import Chain, chain, chained, open_chain
from merging.adapters.dora import Dora
from merging.adapters.opening import Adapter
from merging.codecs.contract import Packed
from merging.codecs.lowrank import LowRank
from merging.codecs.whole import Whole
from merging.errors import InvalidModel
from tests.merging.adapters.real import EVERY, adapted, applied, close, loaded, logits, merged_by_peft, saved
from tests.merging.factories import tiny_llama

STEPS: dict[str, list[dict[str, Any]]] = {
    "two LoRAs": [{"target_modules": EVERY}, {"target_modules": ["q_proj"], "r": 2, "use_rslora": True}],
    "three LoRAs": [{"target_modules": ["q_proj", "k_proj"]}] * 3,
    "a DoRA last": [{"target_modules": ["q_proj"]}, {"target_modules": ["q_proj"], "use_dora": True}],
    "a DoRA first": [{"target_modules": ["q_proj"], "use_dora": True}, {"target_modules": ["q_proj", "v_proj"]}],
    "whole tensors": [
        {"target_modules": ["q_proj"], "modules_to_save": ["norm"]},
        {"target_modules": ["v_proj"], "modules_to_save": ["norm", "lm_head"]},
    ],
    "embeddings": [{"target_modules": ["embed_tokens", "q_proj"]}] * 2,
}


@pytest.mark.parametrize("kind", STEPS)
def test_a_chain_is_one_merge_after_the_other(kind: str, tmp_path: Path) -> None:
    model = tiny_llama()
    base, current, paths = saved(model, tmp_path / "base"), model, []
    for i, settings_ in enumerate(STEPS[kind]):
        paths.append(tmp_path / f"lora{i}")
        current = merged_by_peft(adapted(current, paths[-1], seed=i, **settings_))
    adapters = open_chain(paths, base, [f"chain[{i}]" for i in range(len(paths))])
    mine = applied(base, chain([adapter.deltas for adapter in adapters]))
    close(mine, current)
    assert_close(logits(loaded(model, mine)), logits(current), rtol=1e-5, atol=1e-5)


def test_only_a_chain_may_have_changed_the_base(tmp_path: Path) -> None:
    model, settings_ = tiny_llama(), STEPS["embeddings"][0]
    base = saved(model, tmp_path / "base")
    first = merged_by_peft(adapted(model, tmp_path / "a", **settings_))
    adapted(first, tmp_path / "b", seed=1, **settings_)
    with pytest.raises(InvalidModel, match="trained on another base"):
        Adapter(tmp_path / "b", base)


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float32)


def lora(seed: int, transposed: bool = False) -> LowRank:
    shape = (4, 5) if transposed else (5, 4)
    return LowRank(numbers(shape[0], 2, seed=seed), numbers(2, shape[1], seed=seed + 50), transposed)


def dora(seed: int) -> Dora:
    return Dora(lora(seed).up, lora(seed).down, numbers(5, seed=seed + 90).abs() + 1.0)


def one_by_one(steps: Sequence[Packed], base: Tensor) -> Tensor:
    for step in steps:
        base = step.expert(base)
    return base


KINDS: list[Callable[[int], Packed]] = [
    lora,
    lambda seed: lora(seed, transposed=True),
    dora,
    lambda seed: Whole(numbers(5, 4, seed=seed)),
]


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(st.lists(st.sampled_from(range(4)), min_size=1, max_size=6))
def test_a_chain_is_its_steps_in_order(kinds: list[int]) -> None:
    steps: list[Packed] = [KINDS[kind](i) for i, kind in enumerate(kinds)]
    base, whole = numbers(5, 4, seed=777), chained(steps)
    assert whole.shape == (5, 4)
    assert_close(whole.expert(base), one_by_one(steps, base), rtol=1e-5, atol=1e-5)
    assert_close(whole.moved(torch.clone).expert(base), whole.expert(base), rtol=0.0, atol=0.0)
    if kinds[-1] == 3:
        assert isinstance(whole, Whole)
    if set(kinds) == {0}:
        assert isinstance(whole, LowRank) and whole.up.shape == (5, 2 * len(kinds))


def test_a_chain_says_what_its_steps_hold() -> None:
    whole = chained([dora(0), lora(1)])
    assert isinstance(whole, Chain)
    assert set(whole.payload) == {"0.up", "0.down", "0.magnitude", "1.up", "1.down"}
    assert whole.numbers == {"0.transposed": 0, "1.transposed": 0}


def test_order_matters_to_norms_alone() -> None:
    base = numbers(5, 4, seed=777)
    assert_close(chained([lora(0), lora(1)]).expert(base), chained([lora(1), lora(0)]).expert(base))
    assert (chained([lora(0), dora(1)]).expert(base) - chained([dora(1), lora(0)]).expert(base)).abs().max() > 0.1


def test_steps_of_different_shapes_are_no_chain() -> None:
    with pytest.raises(ValueError, match="one is needed"):
        chained([lora(0), Whole(numbers(3))])
    with pytest.raises(ValueError, match="one is needed"):
        chained([])
