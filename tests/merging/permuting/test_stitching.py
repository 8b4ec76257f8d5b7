"""Stitches between layers, against a solver that sees all activations at once."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.testing import assert_close

from merging.permuting.stitching import Stitch, StitchSums, TurnSums


def draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def sums(x: Tensor, y: Tensor, batch: int) -> StitchSums:
    made = StitchSums(x.shape[-1], y.shape[-1])
    for part in zip(x.split(batch), y.split(batch), strict=True):
        made.add(*part)
    return made


@settings(max_examples=30, deadline=None, derandomize=True, database=None)
@given(seed=st.integers(0, 2**32), width=st.integers(1, 6), target=st.integers(1, 6), batch=st.integers(1, 50))
def test_a_stitch_is_the_least_squares_fit_with_a_bias(seed: int, width: int, target: int, batch: int) -> None:
    x, y = draw(40, width, seed=seed) + 3, draw(40, target, seed=seed + 1) - 5
    y += x @ draw(width, target, seed=seed + 2)
    found = sums(x, y, batch).solve()
    expected = torch.linalg.lstsq(torch.cat([x, torch.ones(40, 1)], 1), y, driver="gelsd").solution
    assert_close(found.weight, expected[:width].mT, rtol=1e-7, atol=1e-8)
    assert_close(found.bias, expected[width], rtol=1e-7, atol=1e-8)


def test_equal_activations_give_the_identity() -> None:
    x = draw(60, 5, seed=0) * torch.tensor([1.0, 1e-2, 30.0, 1.0, 1.0]) + torch.tensor([0.0, 2.0, 1e4, -7.0, 0.0])
    found = sums(x, x, 16).solve()
    assert_close(found.weight, torch.eye(5, dtype=torch.float64), rtol=0, atol=1e-7)
    assert_close(found.bias, torch.zeros(5, dtype=torch.float64), rtol=0, atol=1e-3 * 1e-3 * 1e4)


def test_an_affine_map_is_found_again() -> None:
    planted, x = nn.Linear(6, 4).double(), draw(50, 6, seed=1)
    found = sums(x, planted(x).detach(), 50).solve()
    assert_close(found.weight, planted.weight.data)
    assert_close(found.bias, planted.bias.data)


def test_a_large_mean_drowns_nothing() -> None:
    x = draw(80, 3, seed=2)
    y = x @ draw(3, 2, seed=3)
    far = sums(x + 1e6, y, 8).solve()
    assert_close(far.weight, sums(x, y, 8).solve().weight, rtol=1e-6, atol=1e-6)


def test_a_ridge_shrinks_the_weight_and_not_the_level() -> None:
    x, y = draw(50, 4, seed=4) + 2, draw(50, 3, seed=5) + 9
    y += x[:, :3]
    gathered = sums(x, y, 7)
    norms = [float(gathered.solve(ridge).weight.norm()) for ridge in (0.0, 0.1, 1.0, 1e9)]
    assert norms == sorted(norms, reverse=True) and norms[0] > 1 and norms[-1] < 1e-6
    assert_close(gathered.solve(1e9).bias, y.mean(0), rtol=1e-6, atol=1e-6)
    centred, variance = x - x.mean(0), (x - x.mean(0)).square().sum(0).mean()
    damped = centred.mT @ centred + 0.1 * variance * torch.eye(4, dtype=torch.float64)
    assert_close(gathered.solve(0.1).weight, torch.linalg.solve(damped, centred.mT @ (y - y.mean(0))).mT)


def test_fewer_tokens_than_coordinates_still_fit() -> None:
    x, y = draw(4, 9, seed=6), draw(4, 2, seed=7)
    found = sums(x, y, 4).solve()
    assert_close(x @ found.weight.mT + found.bias, y)
    assert (found.weight.norm() <= 10 * y.norm()) and torch.isfinite(found.weight).all()


def test_activations_are_taken_as_hooks_give_them() -> None:
    x, y = draw(2, 10, 4, seed=8).float().requires_grad_(), draw(2, 10, 3, seed=9).float()
    made = StitchSums(4, 3)
    made.add(x, y)
    made.add(x[:0], y[:0])  # an empty batch counts for nothing
    found, flat = made.solve(), sums(x.detach().double().flatten(0, 1), y.double().flatten(0, 1), 20).solve()
    assert_close(found.weight, flat.weight)
    assert not found.weight.requires_grad


def test_what_does_not_belong_together_is_refused() -> None:
    made = StitchSums(4, 3)
    with pytest.raises(ValueError, match="no activations"):
        made.solve()
    with pytest.raises(ValueError, match="of 5 and of 6 tokens"):
        made.add(torch.zeros(5, 4), torch.zeros(6, 3))


def orthogonal(width: int, seed: int) -> Tensor:
    return torch.linalg.qr(draw(width, width, seed=seed)).Q


def turns(x: Tensor, y: Tensor, batch: int) -> TurnSums:
    made = TurnSums(x.shape[-1])
    for part in zip(x.split(batch), y.split(batch), strict=True):
        made.add(*part)
    return made


@settings(max_examples=30, deadline=None, derandomize=True, database=None)
@given(seed=st.integers(0, 2**32), width=st.integers(1, 6), batch=st.integers(1, 50))
def test_how_much_a_map_explains_is_one_minus_its_share_of_the_variance(seed: int, width: int, batch: int) -> None:
    x, y = draw(40, width, seed=seed) + 3, draw(40, width, seed=seed + 1) - 5
    stitch = Stitch(draw(width, width, seed=seed + 2), draw(width, seed=seed + 3))
    error = x @ stitch.weight.mT + stitch.bias - y
    expected = 1 - float(error.square().sum() / (y - y.mean(0)).square().sum())
    gathered = sums(x, y, batch)
    assert gathered.explained(stitch) == pytest.approx(expected, rel=1e-8, abs=1e-8)
    assert gathered.explained(gathered.solve()) >= max(expected, 0) - 1e-9  # no map explains more


def test_a_planted_rotation_and_scale_are_found_again() -> None:
    planted, x = orthogonal(7, seed=1), draw(90, 7, seed=2) + 4
    found = turns(x, 1.7 * x @ planted.mT, 16).solve()
    assert_close(found.rotation, planted, rtol=0, atol=1e-9)
    assert found.scale == pytest.approx(1.7)
    weight, bias = found.stitch
    assert_close(weight, 1.7 * planted)
    assert not bias.any()


def test_no_rotation_of_directions_is_nearer() -> None:
    x, y = draw(60, 5, seed=3), draw(60, 5, seed=4)
    found = turns(x, y, 60).solve().rotation
    assert_close(found @ found.mT, torch.eye(5, dtype=torch.float64), rtol=0, atol=1e-12)
    ours, theirs = (each / each.norm(dim=1, keepdim=True) for each in (x, y))
    best = (ours @ found.mT * theirs).sum()
    assert all(best >= (ours @ orthogonal(5, seed).mT * theirs).sum() for seed in range(50))


def test_long_tokens_count_no_more_than_short_ones() -> None:
    x, y = draw(60, 5, seed=5), draw(60, 5, seed=6)
    longer = torch.ones(60, 1, dtype=torch.float64)
    longer[7] = 1e4
    found, expected = turns(longer * x, longer * y, 60).solve(), turns(x, y, 60).solve()
    assert_close(found.rotation, expected.rotation)
    assert found.scale == pytest.approx(expected.scale)


def test_directions_that_no_token_has_stay_as_they_are() -> None:
    flat = draw(3, 8, seed=7)  # three directions of eight
    x = draw(50, 3, seed=8) @ flat
    assert_close(turns(x, x, 10).solve().rotation, torch.eye(8, dtype=torch.float64), rtol=0, atol=1e-7)
    assert_close(turns(x[:1], x[:1], 1).solve().rotation, torch.eye(8, dtype=torch.float64), rtol=0, atol=1e-7)


def test_tokens_without_activations_are_left_out() -> None:
    x, y = draw(30, 4, seed=9), draw(30, 4, seed=10)
    expected = turns(x, y, 30).solve()
    gaps = torch.zeros(1, 4, dtype=torch.float64)
    found = turns(torch.cat([x, gaps, x[:1]]), torch.cat([y, y[:1], gaps]), 8).solve()
    assert_close(found.rotation, expected.rotation)
    assert found.scale == pytest.approx(expected.scale)


def test_a_rotation_of_nothing_is_refused() -> None:
    made = TurnSums(3)
    made.add(torch.zeros(5, 3), torch.ones(5, 3))
    with pytest.raises(ValueError, match="not 0"):
        made.solve()
    with pytest.raises(ValueError, match="of 5 and of 6 tokens"):
        made.add(torch.zeros(5, 3), torch.zeros(6, 3))
    still = StitchSums(2, 2)
    still.add(draw(4, 2, seed=11), torch.ones(4, 2))
    with pytest.raises(ValueError, match="never change"):
        still.explained(still.solve())


def test_how_alike_directions_are_is_the_mean_of_their_cosines() -> None:
    x, y = draw(30, 4, seed=12), draw(30, 4, seed=13)
    made = turns(x, y, 7)
    rotation = made.solve().rotation
    for each in (torch.eye(4, dtype=torch.float64), rotation):
        wanted = torch.nn.functional.cosine_similarity(x @ each.mT, y).mean()
        assert made.cosine(each) == pytest.approx(float(wanted))
    assert made.cosine(rotation) > made.cosine(torch.eye(4, dtype=torch.float64))
    with pytest.raises(ValueError, match="not 0"):
        TurnSums(4).cosine(rotation)
