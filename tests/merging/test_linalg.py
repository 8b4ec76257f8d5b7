"""Decompositions against numbers worked by hand, and what they make of noise, nothing and dependence."""

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from merging.linalg import gram_factors, gram_solve, polar, svd


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_svd_of_a_diagonal_is_its_diagonal() -> None:
    left, values, right = svd(torch.diag(torch.tensor([3.0, -5.0, 0.0])))
    assert_close(values, torch.tensor([5.0, 3.0], dtype=torch.float64))
    assert_close((left * values) @ right, torch.diag(torch.tensor([3.0, -5.0, 0.0])).double())


@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (1, 5), (5, 1), (1, 1)])
def test_svd_multiplies_to_the_matrix_from_orthonormal_factors(shape: tuple[int, int]) -> None:
    matrix = numbers(*shape)
    left, values, right = svd(matrix.float())
    assert left.dtype == values.dtype == right.dtype == torch.float64
    assert_close((left * values) @ right, matrix.float().double())
    eye = torch.eye(min(shape), dtype=torch.float64)
    assert_close(left.mT @ left, eye)
    assert_close(right @ right.mT, eye)


def test_svd_leaves_out_the_noise_of_a_float32_product() -> None:
    low = (numbers(96, 3) @ numbers(3, 80, seed=1)).float()
    assert svd(low).values.shape == (3,)
    assert svd(low, 1e-12).values.shape == (80,)  # the rounding of float32 is there
    assert svd(low, rank=2).values.shape == (2,)


def test_a_floor_can_be_a_share_of_something_else() -> None:
    matrix = torch.diag(torch.tensor([1.0, 0.01]))
    assert svd(matrix, 0.1).values.shape == (1,)
    assert svd(matrix, 0.1, scale=torch.tensor(0.05)).values.shape == (2,)
    assert svd(matrix, 0.1, scale=torch.tensor(50.0)).values.shape == (0,)


@pytest.mark.parametrize("shape", [(3, 2), (3, 0), (0, 3), (0, 0)])
def test_nothing_has_no_directions(shape: tuple[int, int]) -> None:
    left, values, right = svd(torch.zeros(shape))
    assert (left.shape, values.shape, right.shape) == ((shape[0], 0), (0,), (0, shape[1]))
    assert torch.equal(polar(torch.zeros(shape)), torch.zeros(shape, dtype=torch.float64))


def test_polar_keeps_a_rotation_and_forgets_a_stretch() -> None:
    rotation = torch.tensor([[0.6, -0.8], [0.8, 0.6]], dtype=torch.float64)
    assert_close(polar(rotation), rotation)
    assert_close(polar(rotation @ torch.diag(torch.tensor([9.0, 0.5]).double())), rotation)


def test_polar_shares_a_direction_among_equal_columns() -> None:
    column = torch.tensor([[0.6], [0.8]], dtype=torch.float64)
    assert_close(polar(torch.cat([column, column], 1)), torch.cat([column, column], 1) / 2**0.5)


def test_gram_solve_is_least_squares() -> None:
    rows, targets = numbers(20, 5), numbers(20, 3, seed=1)
    factors = gram_factors(rows.mT @ rows, targets.mT @ rows)
    assert_close(gram_solve(factors, 0.0), torch.linalg.lstsq(rows, targets).solution.mT)


def test_gram_solve_adds_the_ridge_as_a_share_of_the_mean_diagonal() -> None:
    # diag (6, 2): mean 4, a ridge of ½ adds 2
    factors = gram_factors(torch.diag(torch.tensor([6.0, 2.0])), torch.tensor([[8.0, 8.0]]))
    assert_close(gram_solve(factors, 0.5), torch.tensor([[1.0, 2.0]], dtype=torch.float64))


def test_gram_solve_of_a_deficient_problem_is_the_smallest_solution() -> None:
    rows, targets = numbers(2, 5), numbers(2, 3, seed=1)
    factors = gram_factors(rows.mT @ rows, targets.mT @ rows)
    assert factors.spectrum.shape == (2,)
    assert_close(gram_solve(factors, 0.0), (torch.linalg.pinv(rows) @ targets).mT)
    nothing = gram_factors(torch.zeros(5, 5), torch.zeros(3, 5))
    assert torch.equal(gram_solve(nothing, 0.0), torch.zeros(3, 5, dtype=torch.float64))


def test_a_part_of_a_decomposition_does_not_keep_the_whole() -> None:
    factors = svd(torch.randn(30, 20, generator=torch.Generator().manual_seed(0)), 1e-6, rank=1)
    assert factors.left.untyped_storage().nbytes() == 30 * 8 and factors.right.untyped_storage().nbytes() == 20 * 8
