"""A sum of many numbers has the same bits on any number of threads."""

import math

import pytest
import torch

from merging.methods.primitives import steady_sum
from tests.merging.updates import noise


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
