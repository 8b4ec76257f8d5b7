"""The same promise on a GPU, against lm-eval's own model on the same GPU."""

from typing import Any

import pytest
import torch

from evaluation.live import load_live
from evaluation.suite import Suite
from tests.evaluation.conftest import Tiny
from tests.evaluation.lm.equality import (
    answer,
    changed,
    every_task,
    largest,
    own_lm,
    stock_lm,
    unlike,
)
from tests.evaluation.lm.test_equality_bfloat16 import assert_no_further

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
MOST = 24
NATS = 1e-3  # other kernels for other shapes, and matrix products of which each chooses its own order


@pytest.fixture(scope="module")
def suites(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> tuple[Suite, Suite]:
    """The tiny tasks and this folder's own."""
    return every_task(tiny, tmp_path_factory.mktemp("gpu") / "tasks")


@pytest.mark.parametrize("batch_size", [3, None])
def test_float32_prints_what_lm_eval_prints(tiny: Tiny, suites: tuple[Suite, Suite], batch_size: int | None) -> None:
    model, tokenizer = load_live(tiny.model, "cuda:0", "float32")
    stock = answer(stock_lm(model, tokenizer, 8), suites, MOST)
    ours = answer(own_lm(model, tokenizer, batch_size), suites, MOST)
    assert not unlike(ours, stock) and changed(ours, stock) == 0
    assert largest(ours, stock) < NATS


def test_bfloat16_is_no_further_from_lm_eval_than_it_is_from_itself(tiny: Tiny, suites: tuple[Suite, Suite]) -> None:
    assert_no_further(*load_live(tiny.model, "cuda:0", "bfloat16"), suites, MOST)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_answers_repeat_bit_for_bit_after_the_weights_changed_in_place(
    tiny: Tiny, suites: tuple[Suite, Suite], dtype: str
) -> None:
    model, tokenizer = load_live(tiny.model, "cuda:0", dtype)
    kept = own_lm(model, tokenizer, None)
    first = answer(kept, suites, MOST)
    saved = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    _scale(model, 1.25)
    other = answer(kept, suites, MOST)
    with torch.no_grad():
        model.load_state_dict(saved)
    assert answer(kept, suites, MOST).responses == first.responses != other.responses


def _scale(model: Any, factor: float) -> None:
    with torch.no_grad():
        for tensor in model.parameters():
            tensor.mul_(factor)
