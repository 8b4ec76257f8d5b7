"""The assignment problem against another solver, on numbers of every kind."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from merging.permuting.assignment import assign


def value(similarity: Tensor, columns: Tensor) -> float:
    return float(similarity.double()[torch.arange(len(columns)), columns].sum())


def best(similarity: Tensor) -> float:
    _, columns = linear_sum_assignment(similarity.double().numpy(), maximize=True)
    return value(similarity, torch.from_numpy(columns))


def of_kind(kind: str, count: int, seed: int) -> Tensor:
    """Similarities of one kind, float64 [count, count]."""
    generator = torch.Generator().manual_seed(seed)
    normal = torch.randn((count, count), generator=generator, dtype=torch.float64)
    return {
        "tied integers": torch.randint(-2, 3, (count, count), generator=generator).double(),
        "integers": torch.randint(0, 10**9, (count, count), generator=generator).double(),
        "normal": normal,
        "planted": (normal @ normal.mT)[:, torch.randperm(count, generator=generator)],
        "skewed": (6 * normal).exp(),
        "product": torch.outer(torch.arange(count), torch.arange(count)).double(),
        "constant": torch.full((count, count), -0.3, dtype=torch.float64),
    }[kind]


@pytest.mark.parametrize("kind", ["tied integers", "integers", "normal", "planted", "skewed", "product", "constant"])
@settings(max_examples=40, deadline=None, derandomize=True, database=None)
@given(count=st.integers(1, 24), seed=st.integers(0, 2**32))
def test_no_assignment_is_worth_more(kind: str, count: int, seed: int) -> None:
    similarity = of_kind(kind, count, seed)
    found = assign(similarity)
    assert sorted(found.tolist()) == list(range(count))
    assert value(similarity, found) == pytest.approx(best(similarity), rel=1e-12, abs=1e-12)
    assert torch.equal(assign(similarity.clone()), found)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.int64])
def test_every_number_format_is_taken(dtype: torch.dtype) -> None:
    similarity = (torch.randn(30, 30, generator=torch.Generator().manual_seed(1)) * 10).to(dtype)
    assert value(similarity, assign(similarity)) == pytest.approx(best(similarity), rel=1e-12)


def test_a_larger_problem_without_structure() -> None:
    generator = torch.Generator().manual_seed(2)
    similarity = torch.randn(300, 50, generator=generator) @ torch.randn(50, 300, generator=generator)
    assert value(similarity, assign(similarity)) == pytest.approx(best(similarity), rel=1e-12)


def test_by_hand() -> None:
    # the greatest number, 9, is not taken: 8 + 7 is more than 9 + 1
    assert assign(torch.tensor([[9.0, 8.0], [7.0, 1.0]])).tolist() == [1, 0]
    assert assign(torch.zeros(5, 5)).tolist() == [0, 1, 2, 3, 4]
    assert assign(torch.zeros(0, 0)).tolist() == []
    assert assign(torch.eye(3)[:, [2, 0, 1]]).tolist() == [1, 2, 0]


def test_the_similarity_is_left_as_it_is() -> None:
    similarity = torch.randn(6, 6, dtype=torch.float64)
    kept = similarity.clone()
    assign(similarity)
    assert torch.equal(similarity, kept)
    assert assign(similarity.requires_grad_()).shape == (6,)


@pytest.mark.parametrize("wrong", [torch.zeros(2, 3), torch.zeros(4), torch.tensor([[float("nan")]])])
def test_what_is_no_problem_is_refused(wrong: Tensor) -> None:
    with pytest.raises(ValueError, match="similarity"):
        assign(wrong)


def test_infinity_is_refused() -> None:
    with pytest.raises(ValueError, match="infinity"):
        assign(torch.tensor([[1.0, -torch.inf], [0.0, 1.0]]))
