"""Tensor by tensor against mergekit, for shapes that whole models seldom have: one element, one column, a stack.

It is no dependency (LGPL, for comparison only). docs/mergekit.md says what is kept out of the comparison and why.
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
    ("linear", "linear", {"normalize": False}, {"normalize": False}),
    ("task_arithmetic", "task_arithmetic", {}, {}),
    ("task_arithmetic", "task_arithmetic", {"lambda": 0.7}, {"lambda": 0.7}),
    ("ties", "ties", {"density": 0.5}, {"density": 0.5}),
    ("ties", "ties", {"density": 0.2, "lambda": 1.3}, {"density": 0.2, "lambda": 1.3}),
    ("ties", "ties", {"density": 1.0, "normalize": False}, {"density": 1.0, "normalize": False}),
    ("breadcrumbs", "breadcrumbs", {"density": 0.6, "gamma": 0.1}, {"density": 0.6, "gamma": 0.1}),
    ("breadcrumbs", "breadcrumbs", {"density": 0.95, "gamma": 0.2}, {"density": 0.95, "gamma": 0.2}),
    ("breadcrumbs_ties", "breadcrumbs_ties", {"density": 0.5, "gamma": 0.0}, {"density": 0.5, "gamma": 0.0}),
    ("dare_ties", "dare_ties", {"density": 1.0, "rescale": "l1"}, {"density": 1.0}),
    ("dare", "dare_linear", {"density": 1.0, "rescale": "l1"}, {"density": 1.0}),
    ("della", "della", {"density": 1.0, "rescale": "l1"}, {"density": 1.0}),
    ("model_stock", "model_stock", {"clamp": False}, {}),
    ("model_stock", "model_stock", {"clamp": False, "over": "row"}, {"filter_wise": True}),
    ("nlerp", "multislerp", {}, {}),
    ("nlerp", "multislerp", {"origin": "zero"}, {}),
    ("karcher", "karcher", {"origin": "zero", "iterations": 10, "tol": 1e-5}, {}),
    ("sce", "sce", {"select": 1.0, "uniform_below": 1e-6}, {}),
    ("sce", "sce", {"select": 0.4, "uniform_below": 1e-6}, {"select_topk": 0.4}),
    ("ram", "ram", {"epsilon": 0.05}, {"epsilon": 0.05}),
    ("ram_plus", "ramplus_tl", {"epsilon": 0.05, "r": 0.5, "alpha": 1.0}, {"epsilon": 0.05, "r": 0.5, "alpha": 1.0}),
]
EQUAL = ("karcher", "ram", "ram_plus")  # methods that take weights here and none in mergekit
ONE: list[Case] = [("nearswap", "nearswap", {"t": 0.02}, {"t": 0.02}), ("arcee_fusion", "arcee_fusion", {}, {})]


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


def own_rows(case: Case) -> bool:
    """Whether each row is merged by itself."""
    return case[2].get("over") == "row"


def compare(case: Case, shape: tuple[int, ...], weights: list[float]) -> float:
    """The largest difference between both merges of these models."""
    name, other, own, foreign = case
    base, experts = models(shape, len(weights))
    if CATALOG[name].weight and name not in EQUAL:
        foreign = foreign | {"weight": weights}
    with_base = CATALOG[name].needs_base and own.get("origin") != "zero"
    tensors, index = ([base, *experts], 0) if with_base else (experts, None)
    theirs = merge_methods.merge_tensors(tensors, other, parameters=foreign, base_index=index, dtype=torch.float32)
    return worst(merge(CATALOG[name], base, experts, [1.0] * len(weights) if name in EQUAL else weights, own), theirs)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[1]} {case[3]}")
def test_parity(case: Case, shape: tuple[int, ...]) -> None:
    if case[0] in ("breadcrumbs", "breadcrumbs_ties", "sce") and shape == (1,):
        pytest.skip("mergekit keeps ⌊density · 1⌋ = 0 of one element; here one is always kept")
    if own_rows(case) and len(shape) > 2:
        pytest.skip("a row is a slice along the first dimension here, and one along the last there")
    assert compare(case, shape, [0.4, 0.3, 0.35]) < 1e-6


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("case", ONE, ids=lambda case: case[1])
def test_parity_of_methods_that_take_one_expert(case: Case, shape: tuple[int, ...]) -> None:
    assert compare(case, shape, [1.0]) < 1e-6


@pytest.mark.parametrize("scale", [0.005, 0.3, 3.0])  # 0.005: cosine above 0.9995, the line
@pytest.mark.parametrize("t", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_slerp_parity(shape: tuple[int, ...], t: float, scale: float) -> None:
    base, experts = models(shape, 2, scale)
    theirs = merge_methods.merge_tensors(experts, "slerp", parameters={"t": t}, base_index=0, dtype=torch.float32)
    assert worst(merge(CATALOG["slerp"], base, experts, [1 - t, t]), theirs) < 2e-6


@pytest.mark.parametrize("over", ["tensor", "row", "column"])
@pytest.mark.parametrize("origin", ["zero", "base"])
@pytest.mark.parametrize("shape", [shape for shape in SHAPES if len(shape) < 3], ids=str)
def test_nuslerp_parity(shape: tuple[int, ...], origin: str, over: str) -> None:
    base, experts = models(shape, 2, 0.3)
    tensors, index = ([base, *experts], 0) if origin == "base" else (experts, None)
    foreign = {"weight": [0.7, 0.3], "nuslerp_flatten": over == "tensor", "nuslerp_row_wise": over == "column"}
    theirs = merge_methods.merge_tensors(tensors, "nuslerp", parameters=foreign, base_index=index, dtype=torch.float32)
    assert worst(merge(CATALOG["nuslerp"], base, experts, [0.7, 0.3], {"origin": origin, "over": over}), theirs) < 2e-6
