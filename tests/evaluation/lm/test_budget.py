"""Batches by positions and rows, and what happens when memory runs out."""

import math
from collections.abc import Sequence
from functools import cache
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from evaluation.lm.budget import Budget, chunks, out_of_memory, rotary_angles
from tests.evaluation.lm.families import make


@cache
def _model() -> Any:
    return make("llama")[0]


def batches(budget: Budget, lengths: Sequence[int], most: float = math.inf) -> list[list[int]]:
    """The batches that are computed where more than `most` positions do not fit."""
    done: list[list[int]] = []

    def compute(rows: Sequence[int]) -> None:
        if len(rows) * max(rows) > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        done.append(list(rows))

    budget.run(lengths, int, compute)
    assert [length for batch in done for length in batch] == list(lengths)
    return done


def budget(most_rows: int | None = None, tokens: float | None = None) -> Budget:
    made = Budget(_model(), "cpu", most_rows)
    made.tokens = tokens or made.tokens
    return made


def test_a_batch_holds_so_many_positions() -> None:
    assert batches(budget(tokens=20), [9, 9, 9, 4, 4, 4, 4, 4]) == [[9, 9], [9, 4], [4, 4, 4, 4]]


def test_an_integer_is_the_most_rows() -> None:
    assert batches(budget(most_rows=3), [5, 4, 3, 2, 1]) == [[5, 4, 3], [2, 1]]


def test_a_row_longer_than_the_budget_goes_alone() -> None:
    assert batches(budget(tokens=4), [9, 3, 1]) == [[9], [3], [1]]


def test_much_shorter_rows_wait_for_the_next_batch_once_a_batch_is_worth_a_pass() -> None:
    made = batches(budget(tokens=2048), [300, 290, 280, 40, 30])
    assert made == [[300, 290, 280], [40, 30]]


@pytest.mark.parametrize(
    ("rope", "expected"),
    [
        ({"rope_type": "default"}, [[40, 40, 39, 33, 32, 31]]),
        ({"rope_type": "longrope", "original_max_position_embeddings": 32}, [[40, 40, 39, 33], [32, 31]]),
        ({"rope_type": "dynamic"}, [[40, 40], [39], [33], [32, 31]]),
        ({"full_attention": {"rope_type": "dynamic"}}, [[40, 40], [39], [33], [32, 31]]),
    ],
    ids=["default", "longrope", "dynamic", "dynamic in some layers"],
)
def test_rows_that_a_model_would_rotate_otherwise_do_not_share_a_batch(
    rope: dict[str, Any], expected: list[list[int]]
) -> None:
    """By the longest row of a batch: 32 positions are what the model was trained on."""
    config = SimpleNamespace(rope_parameters=rope, max_position_embeddings=32)
    config.get_text_config = lambda decoder: config
    made = budget(tokens=2048)
    made._angles = rotary_angles(config)
    assert batches(made, [40, 40, 39, 33, 32, 31]) == expected


def test_half_is_tried_when_memory_runs_out_and_remembered(caplog: pytest.LogCaptureFixture) -> None:
    small = budget(most_rows=8)
    assert batches(small, [4] * 8, most=12) == [[4, 4]] * 4
    assert small.tokens == 8
    assert [record.__dict__["action"] for record in caplog.records] == ["lm.budget_halved"] * 2
    assert batches(small, [4] * 4, most=12) == [[4, 4]] * 2
    assert len(caplog.records) == 2


def test_one_row_that_does_not_fit_is_a_memory_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evaluation.lm.budget._free", lambda device: None)  # slow
    with pytest.raises(MemoryError, match="a sequence of 9 positions does not fit in the memory of cpu"):
        batches(budget(), [9, 2], most=8)


def test_other_errors_pass() -> None:
    def fail(rows: Sequence[int]) -> None:
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        budget().run([3], int, fail)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (MemoryError(), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("shapes differ"), False),
        (ValueError("can't allocate memory"), False),
    ],
)
def test_what_says_that_memory_ran_out(error: Exception, expected: bool) -> None:
    assert out_of_memory(error) is expected


def test_less_free_memory_gives_smaller_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    def of(free: int) -> float:
        monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=free))
        return budget().tokens

    sizes = [of(free) for free in (1 << 20, 20 << 20, 30 << 20, 1 << 40)]
    assert sizes == sorted(sizes) and sizes[0] == 512 and sizes[-1] == 2048
    assert all(math.log2(size).is_integer() for size in sizes)


def test_chunks_cover_all_rows() -> None:
    cpu: Any = torch.device("cpu")
    parts = list(chunks(1000, 1 << 14, cpu))
    assert [i for part in parts for i in range(part.start, part.stop)] == list(range(1000)) and len(parts) == 4
    assert list(chunks(2, 1 << 30, cpu)) == [slice(0, 1), slice(1, 2)]
