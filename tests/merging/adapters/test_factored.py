"""Matrices kept as factors: exact sums, best approximations, and what they hold of a dense delta."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from merging.adapters.factored import concatenate, extract, recompress

law = settings(max_examples=40, deadline=None, derandomize=True, database=None)
sizes, ranks = st.integers(1, 12), st.integers(1, 9)


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def near(left: Tensor, right: Tensor) -> None:
    """Asserts equality to 1e-12 of the largest number."""
    scale = float(right.abs().max()) if right.numel() else 1.0
    assert_close(left, right, rtol=0.0, atol=1e-12 * max(scale, 1e-300))


@law
@given(out=sizes, inputs=sizes, each=st.lists(ranks, min_size=1, max_size=4), seed=st.integers(0, 99))
def test_a_sum_of_factors_is_exact(out: int, inputs: int, each: list[int], seed: int) -> None:
    pairs = [
        (numbers(out, r, seed=seed + 2 * i), numbers(r, inputs, seed=seed + 2 * i + 1)) for i, r in enumerate(each)
    ]
    weights = [(-0.5) ** i * 1.3 for i in range(len(each))]
    up, down = concatenate(pairs, weights)
    assert up.shape == (out, sum(each)) and down.shape == (sum(each), inputs)
    total = sum((w * (a @ b) for w, (a, b) in zip(weights, pairs, strict=True)), numbers(out, inputs) * 0.0)
    near(up @ down, total)


def test_a_sum_of_half_precision_factors_rounds_nothing() -> None:
    pairs = [(numbers(5, 2).bfloat16(), numbers(2, 4, seed=1).half())] * 2
    up, down = concatenate(pairs, [1.0, 1 / 3])
    near(up @ down, pairs[0][0].double() @ pairs[0][1].double() * (4 / 3))


@law
@given(out=sizes, inputs=sizes, rank=ranks, seed=st.integers(0, 99))
def test_recompressed_without_loss_it_is_the_same_matrix(out: int, inputs: int, rank: int, seed: int) -> None:
    up, down = numbers(out, rank, seed=seed), numbers(rank, inputs, seed=seed + 1)
    found = recompress(torch.cat([up, up], 1), torch.cat([down, down]))
    near(found.up @ found.down, 2 * up @ down)
    assert found.up.shape[1] <= min(out, inputs, rank)
    assert found.share == pytest.approx(1.0) and found.energy == pytest.approx(float((2 * up @ down).square().sum()))


@law
@given(out=sizes, inputs=sizes, rank=st.integers(0, 12), seed=st.integers(0, 99))
def test_a_truncation_is_the_best_there_is(out: int, inputs: int, rank: int, seed: int) -> None:
    delta = numbers(out, inputs, seed=seed)
    values = torch.linalg.svdvals(delta)
    for found in (extract(delta, rank=rank), recompress(delta, torch.eye(inputs).double(), rank)):
        error = (delta - found.up @ found.down).square().sum()
        assert_close(error, values[rank:].square().sum(), rtol=1e-9, atol=1e-12)  # Eckart and Young
        assert found.energy - found.kept == pytest.approx(float(error), abs=1e-9)
        gram = found.up.mT @ found.up
        assert_close(gram, torch.diag(values[: len(gram)]), rtol=1e-9, atol=1e-9)  # the root of σ in either factor


@law
@given(out=sizes, inputs=sizes, energy=st.floats(0.01, 1.0), seed=st.integers(0, 99))
def test_an_energy_is_held_by_as_few_directions_as_can_be(out: int, inputs: int, energy: float, seed: int) -> None:
    delta = numbers(out, inputs, seed=seed)
    found = extract(delta, energy)
    kept, squares = found.up.shape[1], torch.linalg.svdvals(delta).square()
    assert found.share >= energy * (1 - 1e-12)
    assert kept == 1 or float(squares[: kept - 1].sum() / squares.sum()) < energy


def test_energies_by_hand() -> None:
    delta = torch.diag(torch.tensor([3.0, 2.0, 1.0]))  # squares 9, 4, 1 of 14
    assert [extract(delta, e).up.shape[1] for e in (0.5, 9 / 14, 0.65, 13.5 / 14, 1.0)] == [1, 1, 2, 3, 3]
    assert extract(delta, 0.65).share == pytest.approx(13 / 14)
    assert extract(delta, 1.0, rank=2).share == pytest.approx(13 / 14)


def test_nothing_needs_no_direction() -> None:
    for found in (extract(torch.zeros(4, 3)), recompress(torch.zeros(4, 2), numbers(2, 3))):
        assert found.up.shape == (4, 0) and found.down.shape == (0, 3) and found.share == 1.0


def test_wide_matrices_are_never_formed() -> None:
    size = 200_000  # [size, size] would take 298 GiB
    found = recompress(numbers(size, 3), numbers(3, size, seed=1), rank=2)
    assert found.up.shape == (size, 2) and found.down.shape == (2, size)


@pytest.mark.parametrize(("energy", "rank"), [(0.0, None), (1.1, None), (0.5, -1)])
def test_shares_that_make_no_sense_are_refused(energy: float, rank: int | None) -> None:
    with pytest.raises(ValueError, match="not in"):
        extract(numbers(3, 3), energy, rank)
