"""The steps of delta methods: exact selections, elected signs, means over nobody, sums in a fixed order."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from merging.methods.primitives import elect_, largest_mask, mean_, steady_sum
from tests.merging.updates import check, noise


@settings(max_examples=30, deadline=None, derandomize=True, database=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=12), st.integers(-1, 14))
def test_exactly_the_largest_are_selected_and_the_lowest_indices_of_equals(values: list[int], count: int) -> None:
    chosen = sorted(range(len(values)), key=lambda i: (-values[i], i))[: max(count, 0)]
    mask = largest_mask(torch.tensor(values, dtype=torch.float32), count)
    assert mask.nonzero().flatten().tolist() == sorted(chosen)


def test_a_selection_has_the_shape_of_its_values() -> None:
    assert largest_mask(noise(3, 4), 5).shape == (3, 4) and int(largest_mask(noise(3, 4), 5).sum()) == 5


def test_a_tied_vote_elects_plus() -> None:
    check(elect_(torch.tensor([-0.5, 0.0, 3.0])), -1.0, 1.0, 1.0)


def test_a_mean_over_nobody_is_0() -> None:
    check(mean_(torch.tensor([6.0, 0.0]), torch.tensor([4.0, 0.0])), 1.5, 0.0)


@pytest.mark.parametrize("size", [0, 1, 8192, 8193, 100_003])
def test_a_sum_is_exact_and_the_same_on_any_number_of_threads(size: int) -> None:
    values, before, found = noise(size), torch.get_num_threads(), []
    try:
        for threads in (1, 2, 4):
            torch.set_num_threads(threads)
            found.append(float(steady_sum(values)))
    finally:
        torch.set_num_threads(before)
    assert len(set(found)) == 1 and found[0] == pytest.approx(math.fsum(values.tolist()), abs=1e-9)
