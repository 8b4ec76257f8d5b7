"""The promise in bfloat16: no further from lm-eval than lm-eval is from itself at another batch size.

bfloat16 keeps eight bits, so another batch, being summed in another order, gives other likelihoods; stock lm-eval says
so of itself. Models as narrow as the zoo's give stock the same numbers at every batch size; there, two roundings to
bfloat16, of the logit and of the likelihood, are the most. Another option may be chosen only where stock's own
likelihoods tie.
"""

import copy
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from evaluation.live import load_live
from evaluation.suite import Suite
from tests.evaluation.conftest import Tiny
from tests.evaluation.lm.equality import (
    PAIRS,
    Answered,
    answer,
    changed,
    choices,
    every_task,
    largest,
    load_suites,
    own_lm,
    stock_lm,
)
from zoo.make import Zoo
from zoo.tasks import METRICS

MARGIN = 2.0  # times stock's own noise, which is the largest of a few runs and not of all that could be
STEP = 2.0**-7  # of a number: the most that one rounding to bfloat16 changes from one neighbour to the next
LOGIT = 8.0  # about what logits are: their own rounding shows in a likelihood however near to zero it is
OTHER_BATCHES = (3, 16)
KINDS = ("tiny_generate", "tiny_choice", "tiny_text", "tiny_likely", "own_single", "own_shots")
WIDE: dict[str, Any] = {
    "vocab_size": 31,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 48,
    "initializer_range": 0.1,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}


def assert_no_further(model: Any, tokenizer: Any, suites: Sequence[Suite], most: int) -> float:
    """Compare ours with stock at batch size 1, and stock at other batch sizes with the same.

    Returns:
        Stock's noise: its largest difference to itself.
    """
    stock = answer(stock_lm(model, tokenizer, 1), suites, most)
    others = [answer(stock_lm(model, tokenizer, batch), suites, most) for batch in OTHER_BATCHES]
    noise, flips = max(largest(o, stock) for o in others), max(changed(o, stock) for o in others)
    for batch_size in (3, None):
        ours = answer(own_lm(model, tokenizer, batch_size), suites, most)
        for mine, theirs in zip(ours.likelihoods, stock.likelihoods, strict=True):
            assert abs(mine - theirs) <= (MARGIN * noise or 2 * STEP * max(LOGIT, abs(theirs)))
        assert changed(ours, stock) <= MARGIN * flips + ties(ours, stock, suites[0], most)
    return noise


def ties(ours: Answered, stock: Answered, suite: Suite, most: int) -> int:
    """How many chosen options changed; each must be a tie of stock's, up to the rounding of the two."""
    found = 0
    for one, other in zip(choices(ours, suite, most), choices(stock, suite, most), strict=True):
        mine, theirs = max(one, key=one.__getitem__), max(other, key=other.__getitem__)
        if mine != theirs:
            assert other[theirs] - other[mine] <= 2 * STEP * max(LOGIT, abs(other[mine])), (
                "no tie, and another option was chosen"
            )
            found += 1
    return found


@pytest.fixture(scope="module")
def suites(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> tuple[Suite, Suite]:
    """Tasks of every kind."""
    return every_task(tiny, tmp_path_factory.mktemp("bfloat16") / "tasks", {name: PAIRS[name] for name in KINDS})


def test_trained_models(tiny: Tiny, nano: Zoo, suites: tuple[Suite, Suite]) -> None:
    assert_no_further(*load_live(tiny.model, "cpu", "bfloat16"), suites, most=6)
    of_zoo = load_suites(nano.tasks, {name: (METRICS[name],) * 2 for name in nano.task_names})
    assert_no_further(*load_live(nano.base, "cpu", "bfloat16"), of_zoo, most=4)


def test_a_model_so_wide_that_stock_differs_from_itself(live: tuple[Any, Any], suites: tuple[Suite, Suite]) -> None:
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**WIDE)).eval().requires_grad_(False).to(torch.bfloat16)
    assert assert_no_further(model, live[1], suites, most=5) > 0, "stock is exact here: nothing is shown"


def test_answers_repeat_bit_for_bit(tiny: Tiny) -> None:
    model, tokenizer = load_live(tiny.model, "cpu", "bfloat16")
    suites = load_suites(
        tiny.root / "tasks", {name: PAIRS[name] for name in ("tiny_generate", "tiny_choice", "tiny_text")}
    )
    kept = own_lm(model, tokenizer, None)
    first = answer(kept, suites, most=8)
    saved = copy.deepcopy(model.state_dict())
    with torch.no_grad():
        for tensor in model.parameters():
            tensor.mul_(1.25)
        answer(kept, suites, most=8)
        model.load_state_dict(saved)
    assert answer(kept, suites, most=8).responses == first.responses
    assert answer(own_lm(model, tokenizer, None), suites, most=8).responses == first.responses
