"""KnOTS: the reference formula beside it, numbers by hand, factors against dense deltas, and its laws."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from merging.catalog.lowrank import METHODS
from merging.kernel import draw_key
from merging.methods.knots import drawn, frame_of, frame_of_factors, merged, selected
from tests.merging.driver import merge

(ROW,) = METHODS
Pair = tuple[Tensor, Tensor]
SHAPES = [(9, 7), (7, 9), (40, 3), (6, 40)]


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def adapters(count: int, rank: int, out: int, inputs: int) -> list[Pair]:
    return [(numbers(out, rank, seed=2 * t), numbers(rank, inputs, seed=2 * t + 1)) for t in range(count)]


def products(pairs: Sequence[Pair]) -> list[Tensor]:
    return [up @ down for up, down in pairs]


def update(deltas: Sequence[Tensor], weights: Sequence[float] = (), **how: Any) -> Tensor:
    """What the method adds to the base, λ = 1 unless given; keywords that are no parameters describe the tensor."""
    names = {p.name for p in ROW.parameters}
    values = {"lambda": 1.0} | {key: how.pop(key) for key in list(how) if key in names}
    zero = torch.zeros_like(deltas[0])
    return merge(ROW, zero, list(deltas), list(weights or [1.0] * len(deltas)), values, **how)


def reference(deltas: Sequence[Tensor], weights: Sequence[float], density: float) -> Tensor:
    """The paper's own way: one decomposition of all deltas side by side, TIES with the mean on S V_t, and back."""
    left, values, right = torch.linalg.svd(torch.cat([d.double() for d in deltas], 1), full_matrices=False)
    real = values > 1e-5
    parts = (values[real, None] * right[real]).split(deltas[0].shape[1], 1)
    trimmed = []
    for part in parts:
        kept = max(1, int(density * part.numel()))
        edge = part.abs().flatten().kthvalue(part.numel() - kept + 1).values
        trimmed.append(torch.where(part.abs() >= edge, part, 0.0))
    scaled = torch.stack([w * part for w, part in zip(weights, trimmed, strict=True)])
    sign = torch.where(scaled.sum(0) >= 0.0, 1.0, -1.0)
    agrees = scaled * sign > 0.0
    shares = torch.tensor(weights).double()[:, None, None] * agrees
    joint = (scaled * agrees).sum(0) / torch.where(shares.sum(0) == 0.0, 1.0, shares.sum(0))
    return (left[:, real] @ joint).float()


@pytest.mark.parametrize("density", [0.05, 0.2, 1.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_it_is_the_reference_formula_on_dense_deltas(shape: tuple[int, int], density: float) -> None:
    deltas, weights = [numbers(*shape, seed=t) for t in range(3)], [1.0, 0.5, 2.0]
    assert_close(update(deltas, weights, density=density), reference(deltas, weights, density), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("density", [0.05, 0.2, 1.0])
@pytest.mark.parametrize(("rank", "out", "inputs"), [(1, 12, 10), (2, 30, 40), (4, 40, 3)])
def test_it_is_the_reference_formula_on_adapters(rank: int, out: int, inputs: int, density: float) -> None:
    deltas = products(adapters(3, rank, out, inputs))
    assert_close(update(deltas, density=density), reference(deltas, [1.0] * 3, density), rtol=1e-4, atol=1e-5)


@settings(max_examples=30, deadline=None, derandomize=True, database=None)
@given(
    shape=st.tuples(st.integers(2, 9), st.integers(2, 9)),
    weights=st.lists(st.sampled_from([0.25, 1.0, 3.0]), min_size=1, max_size=4),
    seed=st.integers(0, 99),
)
def test_merged_linearly_it_is_the_weighted_mean(shape: tuple[int, int], weights: list[float], seed: int) -> None:
    deltas = [numbers(*shape, seed=seed + t) for t in range(len(weights))]
    mean = sum((w * d for w, d in zip(weights, deltas, strict=True)), torch.zeros(shape)) / sum(weights)
    assert_close(update(deltas, weights, join="linear"), mean, rtol=1e-5, atol=1e-5)
    assert_close(update(deltas, weights, join="linear", **{"lambda": 0.5}), mean / 2, rtol=1e-5, atol=1e-5)


def test_ties_by_hand_in_the_common_basis() -> None:
    # outputs e₁ + e₂ and e₁ − e₂ are the directions; coordinates (2, 0), (−1, 0) of the one and (0, 3) of the other
    plus, minus = torch.tensor([1.0, 1.0]) / 2**0.5, torch.tensor([1.0, -1.0]) / 2**0.5
    first = torch.outer(plus, torch.tensor([2.0, 0.0]))
    second = torch.outer(plus, torch.tensor([-1.0, 0.0])) + torch.outer(minus, torch.tensor([0.0, 3.0]))
    expected = torch.outer(plus, torch.tensor([2.0, 0.0])) + torch.outer(minus, torch.tensor([0.0, 3.0]))
    assert_close(update([first, second], density=1.0), expected)
    # a quarter of four coordinates is one; with three times the weight the second outvotes the first where it is kept
    assert_close(update([first, second], density=0.25), expected)
    won = torch.outer(plus, torch.tensor([-1.0, 0.0])) + torch.outer(minus, torch.tensor([0.0, 3.0]))
    assert_close(update([first, second], [1.0, 3.0], density=1.0), won)


def factored(pairs: Sequence[Pair], weights: Sequence[float], density: float | None) -> Tensor:
    frame = frame_of_factors(pairs)
    chosen = frame if density is None else selected(frame, [density] * len(pairs))
    return frame.basis @ merged(chosen, weights, elects=density is not None)


@settings(max_examples=30, deadline=None, derandomize=True, database=None)
@given(
    count=st.integers(1, 4),
    rank=st.integers(1, 5),
    out=st.integers(2, 24),
    inputs=st.integers(2, 24),
    density=st.sampled_from([None, 0.2, 0.7, 1.0]),
)
def test_factors_give_what_dense_deltas_give(
    count: int, rank: int, out: int, inputs: int, density: float | None
) -> None:
    pairs, weights = adapters(count, rank, out, inputs), [1.0, 0.5, 2.0, 1.0][:count]
    frame = frame_of(torch.stack([up.double() @ down.double() for up, down in pairs]))
    chosen = frame if density is None else selected(frame, [density] * count)
    dense = frame.basis @ merged(chosen, weights, elects=density is not None)
    assert_close(factored(pairs, weights, density), dense, rtol=1e-3, atol=1e-4)


def test_factors_of_unequal_ranks_share_one_basis() -> None:
    pairs = [(numbers(50, 3), numbers(3, 20, seed=1)), (numbers(50, 7, seed=2), numbers(7, 20, seed=3))]
    frame = frame_of_factors(pairs)
    assert frame.basis.shape == (50, 10) and frame.coordinates.shape == (2, 10, 20)
    assert_close(frame.basis.mT @ frame.basis, torch.eye(10), rtol=0.0, atol=1e-6)
    for product, coordinates in zip(products(pairs), frame.coordinates, strict=True):
        assert_close(frame.basis @ coordinates, product, rtol=1e-4, atol=1e-5)


def test_null_directions_take_no_room() -> None:
    pairs = adapters(2, 3, 30, 20)
    assert frame_of(torch.stack(products(pairs))).basis.shape == (30, 6)
    assert frame_of_factors([*pairs, *pairs]).basis.shape == (30, 6)
    faint = [(up + 1e-9 * numbers(30, 3, seed=9), down) for up, down in pairs]
    assert frame_of_factors([*pairs, *faint]).basis.shape == (30, 6)
    assert frame_of_factors([*pairs, *faint], floor=1e-12).basis.shape[1] > 6
    assert not update([torch.zeros(5, 4)] * 2).any()


def test_dare_draws_by_seed_name_and_expert_and_keeps_the_expectation() -> None:
    delta = products(adapters(1, 2, 12, 10))[0]
    drawn_once = [update([delta], join="dare_ties", density=0.5, seed=seed) for seed in range(400)]
    assert not torch.equal(drawn_once[0], drawn_once[1])
    assert torch.equal(update([delta], join="dare_ties", density=0.5, seed=1), drawn_once[1])
    error = torch.stack(drawn_once).mean(0) - delta
    scale = torch.stack(drawn_once).std(0).mean() / 20
    assert error.abs().mean() < 2 * scale  # 0.8 of it is expected
    first, again = numbers(8, 8), numbers(8, 8, seed=1)
    forward = update([first, again], join="dare_ties", fingerprints=("x", "y"))
    backward = update([again, first], join="dare_ties", fingerprints=("y", "x"))
    assert_close(forward, backward, rtol=1e-4, atol=1e-5)


def test_dare_of_factors_draws_with_the_keys_it_is_given() -> None:
    pairs = adapters(2, 3, 12, 10)
    keys = [draw_key(0, "w", f"expert {t}") for t in range(2)]
    frame = drawn(frame_of_factors(pairs), [0.4, 0.4], keys)
    joined = frame.basis @ merged(frame, [1.0, 1.0], elects=True)
    assert_close(joined, update(products(pairs), join="dare_ties", density=0.4), rtol=1e-3, atol=1e-4)


def test_at_full_density_both_kinds_of_ties_are_one() -> None:
    deltas = [numbers(6, 5, seed=t) for t in range(3)]
    assert_close(update(deltas, join="dare_ties", density=1.0), update(deltas, density=1.0))


def test_each_expert_may_have_a_density_of_its_own() -> None:
    deltas = [numbers(6, 5, seed=t) for t in range(2)]
    both = selected(frame_of(torch.stack(deltas)), [0.1, 0.9])
    expected = both.basis @ merged(both, [1.0, 1.0], elects=True)
    assert_close(update(deltas, density=(0.1, 0.9)), expected)


def test_opposite_experts_are_no_accident_of_a_sign() -> None:
    delta = torch.outer(torch.tensor([1.0, -1.0, 0.5]), numbers(4))  # every vote is tied: + wins, in one basis
    forward, backward = update([delta, -delta], density=1.0), update([-delta, delta], density=1.0)
    assert_close(forward, backward)
    assert forward.any()


def test_stored_input_first_and_stacked_matrices_are_merged_alike() -> None:
    deltas = [numbers(6, 9, seed=t) for t in range(2)]
    upright = update(deltas)
    assert_close(update([d.mT.contiguous() for d in deltas], transposed=True), upright.mT.contiguous())
    others = [numbers(6, 9, seed=t + 5) for t in range(2)]
    stacks = [torch.stack(pair) for pair in zip(deltas, others, strict=True)]
    assert_close(update(stacks), torch.stack([upright, update(others)]))


@pytest.mark.parametrize("role", ["embedding", "vector", "other"])
def test_what_is_no_matrix_takes_the_weighted_mean(role: Any) -> None:
    deltas = [numbers(6, 9, seed=t) for t in range(2)]
    assert_close(update(deltas, [1.0, 3.0], role=role), (deltas[0] + 3 * deltas[1]) / 4)


def test_nan_reaches_the_result() -> None:
    deltas = [numbers(4, 4), numbers(4, 4, seed=1)]
    deltas[0][1, 2] = float("nan")
    assert update(deltas)[1, 2].isnan()
