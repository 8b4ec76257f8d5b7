"""The promise in float32: every metric is what stock lm-eval prints, whatever the batches are."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from evaluation.live import load_live
from evaluation.suite import Suite
from tests.evaluation.conftest import Tiny
from tests.evaluation.lm.equality import (
    Answered,
    answer,
    changed,
    every_task,
    largest,
    load_suites,
    own_lm,
    stock_lm,
    unlike,
)
from tests.evaluation.tiny import write_chat
from zoo.make import Zoo
from zoo.tasks import METRICS

NATS = 1e-4
STOCK_BATCH = 8
DOCUMENTS = 24  # of each task


def assert_equal(ours: Answered, stock: Answered) -> None:
    """Every metric to the printed digit, every decision, and the log-likelihoods up to other kernels' rounding."""
    assert not unlike(ours, stock)
    assert changed(ours, stock) == 0
    assert largest(ours, stock) < NATS


@pytest.fixture(scope="module")
def suites(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> tuple[Suite, Suite]:
    """The tiny tasks and this test's own, each with two metrics."""
    return every_task(tiny, tmp_path_factory.mktemp("equality") / "tasks")


@pytest.fixture(scope="module")
def stock(live: tuple[Any, Any], suites: tuple[Suite, Suite]) -> Answered:
    """What lm-eval's own model answers."""
    return answer(stock_lm(*live, STOCK_BATCH), suites, DOCUMENTS)


@pytest.mark.parametrize("batch_size", [3, None])
def test_every_metric_of_every_kind_of_task(
    live: tuple[Any, Any], suites: tuple[Suite, Suite], stock: Answered, batch_size: int | None
) -> None:
    assert_equal(answer(own_lm(*live, batch_size), suites, DOCUMENTS), stock)


def test_the_tasks_tell_models_apart(stock: Answered) -> None:
    # a comparison of zeros would prove nothing
    shares = {k: v for k, v in stock.values.items() if k[1].startswith(("acc", "exact", "f1"))}
    assert len(stock.values) == 20
    assert sum(0.05 < value < 0.99 for value in shares.values()) > 6, shares


def test_the_zoo(nano: Zoo) -> None:
    suites = load_suites(nano.tasks, {name: (METRICS[name],) * 2 for name in nano.task_names})
    model, tokenizer = load_live(nano.experts["dic"], "cpu", "float32")
    expected = answer(stock_lm(model, tokenizer, STOCK_BATCH), suites, most=12)
    assert_equal(answer(own_lm(model, tokenizer, None), suites, most=12), expected)


@pytest.mark.parametrize("multiturn", [False, True])
def test_a_tokenizer_that_adds_a_beginning_by_itself_and_a_chat_template(
    live: tuple[Any, Any], tiny: Tiny, tmp_path: Path, multiturn: bool
) -> None:
    tokenizer = write_chat(live[1], tmp_path / "chat")
    spec = tiny.spec("tiny_shots", "tiny_choice", "tiny_likely", chat_template=True, fewshot_as_multiturn=multiturn)
    suites = [Suite.load(spec, tiny.root, "equality", tmp_path / "chat")]
    expected = answer(stock_lm(live[0], tokenizer, STOCK_BATCH), suites, DOCUMENTS)
    assert_equal(answer(own_lm(live[0], tokenizer, None), suites, DOCUMENTS), expected)


def test_answers_repeat_bit_for_bit_whatever_came_before(live: tuple[Any, Any], suites: tuple[Suite, Suite]) -> None:
    model = copy.deepcopy(live[0])
    kept = own_lm(model, live[1], None)
    first = answer(kept, suites, most=8)
    tensors = [p for p in model.parameters() if p.dim() > 1]
    saved = [tensor.clone() for tensor in tensors]
    for tensor in tensors:  # another candidate between, whose answers become drafts
        tensor.mul_(1.3)
    other = answer(kept, suites, most=8)
    for tensor, values in zip(tensors, saved, strict=True):
        tensor.copy_(values)
    again, fresh = answer(kept, suites, most=8), answer(own_lm(model, live[1], None), suites, most=8)
    assert first.responses == again.responses == fresh.responses
    assert other.responses != first.responses


def test_a_candidate_that_comes_after_another_is_scored_as_lm_eval_scores_it(
    live: tuple[Any, Any], suites: tuple[Suite, Suite]
) -> None:
    # drafts from the candidate before are half right here
    model = copy.deepcopy(live[0])
    kept = own_lm(model, live[1], None)
    before = answer(kept, suites, most=8)
    torch.manual_seed(7)
    for tensor in (p for p in model.parameters() if p.dim() > 1):
        tensor.add_(torch.randn_like(tensor), alpha=0.3 * float(tensor.std()))
    after = answer(kept, suites, most=8)
    texts = list(zip(before.responses["generate_until"], after.responses["generate_until"], strict=True))
    assert 0 < sum(a != b for a, b in texts) < len(texts)
    assert_equal(after, answer(stock_lm(model, live[1], STOCK_BATCH), suites, most=8))
