"""Tensor by tensor against mergekit 0.1.5, where it is installed (it is no dependency: LGPL, for comparison only).

Intended differences, kept out of the comparison: DARE divides by the density (mergekit keeps the L1 norm),
Model Stock clamps t to [0, 1] (mergekit extrapolates), and a zero model has no arc in slerp.
"""

from typing import Any

import pytest
import torch
from torch import Tensor

from merging.catalog import CATALOG
from tests.merging.driver import merge

merge_methods = pytest.importorskip("mergekit.merge_methods", reason="mergekit is not installed", exc_type=ImportError)

SHAPES = [(1,), (8,), (5, 1), (1, 5), (64, 48), (3, 4, 5)]
Case = tuple[str, str, dict[str, Any], dict[str, Any]]
CASES: list[Case] = [  # ours, mergekit's, our parameters, mergekit's
    ("linear", "linear", {}, {"normalize": True}),
    ("task_arithmetic", "task_arithmetic", {}, {}),
    ("task_arithmetic", "task_arithmetic", {"lambda": 0.7}, {"lambda": 0.7}),
    ("ties", "ties", {"density": 0.5}, {"density": 0.5}),
    ("ties", "ties", {"density": 0.2, "lambda": 1.3}, {"density": 0.2, "lambda": 1.3}),
    ("ties", "ties", {"density": 1.0}, {"density": 1.0}),
    ("breadcrumbs", "breadcrumbs", {"density": 0.6, "gamma": 0.1}, {"density": 0.6, "gamma": 0.1}),
    ("breadcrumbs", "breadcrumbs", {"density": 0.95, "gamma": 0.2}, {"density": 0.95, "gamma": 0.2}),
    ("breadcrumbs", "breadcrumbs", {"density": 0.5, "gamma": 0.0}, {"density": 0.5, "gamma": 0.0}),
    ("dare_ties", "dare_ties", {"density": 1.0}, {"density": 1.0}),
    ("dare", "dare_linear", {"density": 1.0}, {"density": 1.0}),
    ("model_stock", "model_stock", {}, {}),
]


def models(shape: tuple[int, ...], experts: int, scale: float = 0.05) -> tuple[Tensor, list[Tensor]]:
    """A base and experts whose deltas share a part, so that their cosines are about one half."""
    generator = torch.Generator().manual_seed(sum(shape) + experts)

    def noise() -> Tensor:
        return torch.randn(shape, generator=generator)

    base, shared = noise(), noise()
    return base, [base + scale * (shared + noise()) for _ in range(experts)]


def worst(ours: Tensor, theirs: Tensor) -> float:
    """Largest difference relative to the largest element."""
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(("name", "other", "own", "foreign"), CASES)
def test_parity(
    name: str,
    other: str,
    own: dict[str, Any],
    foreign: dict[str, Any],
    shape: tuple[int, ...],
) -> None:
    if name == "breadcrumbs" and shape == (1,):
        pytest.skip("mergekit keeps ⌊density · 1⌋ = 0 of one element; here one is always kept")
    base, experts = models(shape, 3)
    weights = [0.4, 0.3, 0.35]
    if CATALOG[name].weight:
        foreign = foreign | {"weight": weights}
    with_base = CATALOG[name].needs_base
    theirs = merge_methods.merge_tensors(
        [base, *experts] if with_base else experts,
        other,
        parameters=foreign,
        base_index=0 if with_base else None,
        dtype=torch.float32,
    )
    assert worst(merge(CATALOG[name], base, experts, weights, own), theirs) < 1e-6


@pytest.mark.parametrize("scale", [0.005, 0.3, 3.0])  # 0.005: cosine above 0.9995, the line
@pytest.mark.parametrize("t", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_slerp_parity(shape: tuple[int, ...], t: float, scale: float) -> None:
    base, experts = models(shape, 2, scale)
    theirs = merge_methods.merge_tensors(experts, "slerp", parameters={"t": t}, base_index=0, dtype=torch.float32)
    assert worst(merge(CATALOG["slerp"], base, experts, [1 - t, t]), theirs) < 2e-6
