"""Least squares over several models' layers, against a solver that sees the activations themselves."""

from collections.abc import Callable, Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from merging.permuting.pleas import following_weight, pleas_weight, times

OUT, IN, TOKENS = 5, 7, 60
Solver = Callable[[Tensor, Tensor, Sequence[float], float], Tensor]
FEW = settings(max_examples=25, deadline=None, derandomize=True, database=None)


def regmean(weights: Tensor, cross: Tensor, w: Sequence[float], ridge: float) -> Tensor:
    """Each model's outputs from its own inputs."""
    grams = torch.stack([cross[t, t] for t in range(len(w))])
    moments = torch.stack([times(own, gram) for own, gram in zip(weights, grams, strict=True)])
    return following_weight(weights, grams, moments, w, ridge)


BOTH = pytest.mark.parametrize("solver", [pleas_weight, regmean])


def draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def layers(count: int, seed: int = 0, tokens: int = TOKENS) -> tuple[Tensor, Tensor, Tensor]:
    """Weights [T, OUT, IN], inputs [T, tokens, IN] with a common part, and their cross Gram matrices."""
    inputs = draw(1, tokens, IN, seed=seed) + 0.7 * draw(count, tokens, IN, seed=seed + 1)
    return draw(count, OUT, IN, seed=seed + 2), inputs, products(inputs)


def products(inputs: Tensor) -> Tensor:
    """z_iᵀ z_j / tokens of inputs [T, tokens, IN]."""
    return torch.einsum("ina,jnb->ijab", inputs, inputs) / inputs.shape[1]


@FEW
@given(count=st.integers(1, 4), seed=st.integers(0, 2**32))
def test_pleas_is_the_least_squares_fit_of_mean_outputs_to_mean_inputs(count: int, seed: int) -> None:
    weights, inputs, cross = layers(count, seed)
    w = [(i + 1) / sum(range(1, count + 1)) for i in range(count)]
    z = sum(share * each for share, each in zip(w, inputs, strict=True))
    y = sum(share * each @ weight.mT for share, each, weight in zip(w, inputs, weights, strict=True))
    assert isinstance(z, Tensor) and isinstance(y, Tensor)
    expected = torch.linalg.lstsq(z, y, driver="gelsd").solution.mT
    assert_close(pleas_weight(weights, cross, w, 0.0), expected, rtol=1e-8, atol=1e-8)


@FEW
@given(count=st.integers(1, 4), seed=st.integers(0, 2**32))
def test_stacked_is_the_least_squares_fit_of_each_models_outputs_to_its_inputs(count: int, seed: int) -> None:
    weights, inputs, cross = layers(count, seed)
    w = [0.5 + 0.25 * i for i in range(count)]
    z = torch.cat([share**0.5 * each for share, each in zip(w, inputs, strict=True)])
    y = torch.cat([share**0.5 * each @ weight.mT for share, each, weight in zip(w, inputs, weights, strict=True)])
    expected = torch.linalg.lstsq(z, y, driver="gelsd").solution.mT
    assert_close(regmean(weights, cross, w, 0.0), expected, rtol=1e-8, atol=1e-8)


@BOTH
@pytest.mark.parametrize("ridge", [0.0, 0.1, 10.0])
@pytest.mark.parametrize("tokens", [3, TOKENS])  # fewer tokens than inputs leave directions without any
def test_one_model_and_equal_models_give_themselves(solver: Solver, ridge: float, tokens: int) -> None:
    weights, inputs, cross = layers(1, tokens=tokens)
    assert_close(solver(weights, cross, [1.0], ridge), weights[0])
    equal = products(inputs.expand(3, -1, -1))
    assert_close(solver(weights.expand(3, -1, -1), equal, [0.5, 0.3, 0.2], ridge), weights[0])


@BOTH
def test_equal_weights_are_kept_whatever_the_inputs(solver: Solver) -> None:
    weights, _, cross = layers(1)[0].expand(3, -1, -1), None, layers(3)[2]
    assert_close(solver(weights, cross, [0.2, 0.2, 0.6], 0.01), weights[0])


@BOTH
def test_a_ridge_pulls_toward_the_mean_of_the_weights(solver: Solver) -> None:
    weights, _, cross = layers(2)
    mean = 0.25 * weights[0] + 0.75 * weights[1]
    distances = [float((solver(weights, cross, [0.25, 0.75], ridge) - mean).norm()) for ridge in (0.0, 0.1, 1.0, 1e9)]
    assert distances == sorted(distances, reverse=True) and distances[0] > 0.5 and distances[-1] < 1e-6


@BOTH
def test_directions_without_inputs_take_the_mean(solver: Solver) -> None:
    weights, inputs, _ = layers(2)
    inputs[:, :, 4:] = 0
    found = solver(weights, products(inputs), [0.5, 0.5], 0.0)
    assert_close(found[:, 4:], weights.mean(0)[:, 4:])
    assert (found[:, :4] - weights.mean(0)[:, :4]).norm() > 0.1


def test_pleas_serves_better_than_the_mean_of_the_weights() -> None:
    weights, inputs, cross = layers(2)
    z, y = inputs.mean(0), torch.stack([each @ weight.mT for each, weight in zip(inputs, weights, strict=True)]).mean(0)
    best, mean = (
        float((z @ m.mT - y).norm()) for m in (pleas_weight(weights, cross, [0.5, 0.5], 0.0), weights.mean(0))
    )
    assert best < 0.95 * mean


@BOTH
def test_order_does_not_matter(solver: Solver) -> None:
    weights, _, cross = layers(3)
    order = [2, 0, 1]
    found = solver(weights[order], cross[order][:, order], [0.2, 0.5, 0.3], 0.1)
    assert_close(found, solver(weights, cross, [0.5, 0.3, 0.2], 0.1))


def test_following_makes_other_outputs_of_other_inputs() -> None:
    w, xs, ys = [0.3, 0.7], draw(2, TOKENS, IN, seed=1), draw(2, TOKENS, OUT, seed=2)
    x = torch.cat([share**0.5 * each for share, each in zip(w, xs, strict=True)])
    y = torch.cat([share**0.5 * each for share, each in zip(w, ys, strict=True)])
    moments = torch.einsum("tno,tni->toi", ys, xs) / TOKENS
    grams = torch.einsum("tna,tnb->tab", xs, xs) / TOKENS
    found = following_weight(torch.zeros(2, OUT, IN), grams, moments, w, 0.0)
    assert_close(found, torch.linalg.lstsq(x, y).solution.mT, rtol=1e-8, atol=1e-8)
    nearly = following_weight(torch.zeros(2, OUT, IN), grams, moments, w, 1e-9)
    assert_close(nearly, found, rtol=1e-5, atol=1e-6)


@BOTH
def test_channels_that_never_go_together_need_no_products_of_different_ones(solver: Solver) -> None:
    weights, _, cross = layers(2)
    own = cross.diagonal(dim1=2, dim2=3)
    apart = own[..., None] * torch.eye(IN, dtype=torch.float64)
    assert_close(solver(weights, own, [0.25, 0.75], 0.1), solver(weights, apart, [0.25, 0.75], 0.1))
