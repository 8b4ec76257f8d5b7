"""Gradients by coefficients: against finite differences of a real model, a quadratic's closed form, and in pieces."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from merging import coefficients
from merging.coefficients import coefficient_gradient, inner_products
from merging.models import ModelSet, Stack
from tests.merging.factories import LAYERS, open_models, tiny_llama


def groups_of(models: ModelSet) -> dict[str, int]:
    """Layer by layer; what stands before the layers with the first, after them with the last."""
    sides = {"before": 0, "after": LAYERS - 1}
    places = {name: place.layer for name, place in models.layout.places.items()}
    return {name: layer if isinstance(layer, int) else sides[layer] for name, layer in places.items()}


def candidate(models: ModelSet, groups: Mapping[str, int], weights: Tensor) -> dict[str, Tensor]:
    found = {}
    for name, group in groups.items():
        base, experts = models.stack(name)
        found[name] = base + sum(w * (x - base) for w, x in zip(weights[:, group], experts, strict=True))
    return found


def loss_of(live: Any) -> Callable[[Mapping[str, Tensor]], Tensor]:
    ids = torch.randint(0, 61, (3, 12), generator=torch.Generator().manual_seed(0))

    def loss(tensors: Mapping[str, Tensor]) -> Tensor:
        logits = torch.func.functional_call(live, dict(tensors), kwargs={"input_ids": ids}).logits
        return torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())

    return loss


def test_against_finite_differences(tmp_path: Path) -> None:
    models, live = open_models(tmp_path, dtype=torch.float64), tiny_llama(dtype=torch.float64).eval()
    groups, loss = groups_of(models), loss_of(live)
    weights = torch.rand(3, LAYERS, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    tensors = {name: tensor.requires_grad_(True) for name, tensor in candidate(models, groups, weights).items()}
    slopes = torch.autograd.grad(loss(tensors), list(tensors.values()))
    found = coefficient_gradient(zip(tensors, slopes, strict=True), models.stack, groups, 3)
    step, expected = 0.05, torch.zeros_like(weights)  # transformers' norms are float32: a small step is all rounding
    with torch.no_grad():
        for place in [(t, g) for t in range(3) for g in range(LAYERS)]:
            for far, share in ((1, 8 / 12), (-1, -8 / 12), (2, -1 / 12), (-2, 1 / 12)):  # five points, fourth order
                moved = weights.clone()
                moved[place] += far * step
                expected[place] += share * loss(candidate(models, groups, moved)) / step
    assert expected.abs().median() > 1e-3
    assert_close(found, expected, rtol=1e-3, atol=1e-5)


def drawn(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_it_vanishes_where_a_quadratic_has_its_minimum() -> None:
    base, experts, target = drawn(40, seed=0), [drawn(40, seed=1 + t) for t in range(3)], drawn(40, seed=9)
    deltas = torch.stack([x - base for x in experts])

    def gradient(weights: Tensor) -> Tensor:
        slope = base + weights @ deltas - target  # of ½ ‖θ − target‖²
        return coefficient_gradient([("w", slope)], lambda name: Stack(base, experts), {"w": 0}, 3)[:, 0]

    best = torch.linalg.solve(deltas @ deltas.T, deltas @ (target - base))
    assert_close(gradient(best), torch.zeros(3, dtype=torch.float64), rtol=0, atol=1e-10)
    elsewhere = best + torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64)
    assert_close(gradient(elsewhere), deltas @ deltas.T @ (elsewhere - best))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_deltas_come_in_pieces(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    stack = Stack(drawn(7, 11, seed=0).to(dtype), [drawn(7, 11, seed=1 + t).to(dtype) for t in range(2)])
    gradient = drawn(11, 7, seed=5).to(dtype).T  # scattered in memory
    expected = [((x.double() - stack.base.double()) * gradient.double()).sum() for x in stack.experts]
    for chunk in (1 << 18, 10, 1):
        monkeypatch.setattr(coefficients, "CHUNK", chunk)
        assert_close(inner_products(gradient, stack), torch.stack(expected), rtol=1e-12, atol=1e-12)


def test_small_deltas_of_large_models_keep_their_digits() -> None:
    base = torch.full((1000,), 4096.0)
    expert = base + torch.arange(1000) % 2 * 2.0**-11  # the last bit
    found = inner_products(torch.full((1000,), 3.0), Stack(base, [expert, base]))
    assert found.tolist() == [500 * 3.0 * 2.0**-11, 0.0]


def test_groups_sum_over_their_tensors_and_what_has_no_gradient_counts_nothing() -> None:
    stacks = {n: Stack(drawn(5, seed=i), [drawn(5, seed=10 + i)]) for i, n in enumerate("abc")}
    slopes = {name: drawn(5, seed=20 + i) for i, name in enumerate("ab")}
    found = coefficient_gradient(slopes.items(), stacks.__getitem__, {"a": 1, "b": 1, "c": 0}, 1)
    parts = [inner_products(slopes[name], stacks[name]) for name in "ab"]
    assert found.tolist() == [[0.0, float(parts[0] + parts[1])]]
