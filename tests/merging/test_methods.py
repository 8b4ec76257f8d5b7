"""Each method against numbers worked by hand, the statistics of its draws, and what it must survive."""

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from merging.catalog import CATALOG, implementation
from merging.methods.contract import TensorContext
from tests.merging.driver import gram_matrix, is_linear, merge, parameters_of

BASE = torch.tensor([1.0, 1.0, 1.0, 1.0])
A = torch.tensor([5.0, 1.0, -1.0, 0.0])  # τ = [ 4, 0, −2, −1]
B = torch.tensor([3.0, 7.0, 2.0, 0.5])  # τ = [ 2, 6,  1, −½]
SPARSE = ["ties", "dare", "dare_ties", "breadcrumbs"]


def merged(
    name: str, experts: Sequence[Tensor], weights: Sequence[float], base: Tensor = BASE, **values: Any
) -> Tensor:
    parameters = {key.removesuffix("_"): value for key, value in values.items()}
    return merge(CATALOG[name], base, experts, weights, parameters)


def check(actual: Tensor, *expected: float) -> None:
    assert_close(actual, torch.tensor(expected), rtol=1e-6, atol=1e-6)


def test_linear_is_the_weighted_mean() -> None:
    check(merged("linear", [A, B], [3.0, 1.0]), 4.5, 2.5, -0.25, 0.125)  # ¾ A + ¼ B
    check(merged("linear", [A, B], [30.0, 10.0]), 4.5, 2.5, -0.25, 0.125)


def test_task_arithmetic_adds_and_subtracts_deltas() -> None:
    check(merged("task_arithmetic", [A, B], [1.0, 0.5]), 6.0, 4.0, -0.5, -0.25)  # 1 + τ_A + ½ τ_B
    check(merged("task_arithmetic", [A, B], [1.0, 0.5], lambda_=0.5), 3.5, 2.5, 0.25, 0.375)
    check(merged("task_arithmetic", [A], [-1.0]), -3.0, 1.0, 3.0, 2.0)  # forgets A


def test_task_arithmetic_recovers_each_expert_on_disjoint_supports() -> None:
    left, right = BASE + torch.tensor([1.0, 2.0, 0.0, 0.0]), BASE + torch.tensor([0.0, 0.0, 3.0, 4.0])
    check(merged("task_arithmetic", [left, right], [1.0, 1.0]), 2.0, 3.0, 4.0, 5.0)


def test_layer_swap_takes_one_expert_whole() -> None:
    assert torch.equal(merged("layer_swap", [A, B], [0.0, 3.0]), B)
    with pytest.raises(ValueError, match="one expert"):
        merged("layer_swap", [A, B], [1.0, 1.0])


@pytest.mark.parametrize(
    ("second", "cosine"), [([0.0, 2.0], 0.0), ([1.0, 1.0], math.sqrt(0.5)), ([2.0, 0.0], 1.0), ([-1.0, 1.0], 0.0)]
)
def test_model_stock_shrinks_by_the_angle_of_two_deltas(second: list[float], cosine: float) -> None:
    base, first, other = torch.tensor([3.0, -2.0]), torch.tensor([1.0, 0.0]), torch.tensor(second)
    t = 2 * cosine / (1 + cosine)  # T = 2; a cosine below 0 (−√½, the last) counts as 0
    mean = (first + other) / 2
    assert_close(merged("model_stock", [base + first, base + other], [], base), base + t * mean)
    halved = merged("model_stock", [base + first, base + other], [], base, lambda_=0.5)
    assert_close(halved, base + 0.5 * t * mean)


def test_model_stock_averages_the_cosines_of_three_pairs() -> None:
    # e_1, e_1, e_2: cosines 1, 0, 0; c = 1/3; t = 3·(1/3) / (1 + 2/3) = 0.6; mean = [2/3, 1/3]
    deltas = [torch.tensor([1.0, 0.0]), torch.tensor([5.0, 0.0]) / 5, torch.tensor([0.0, 1.0])]
    check(merged("model_stock", deltas, [], torch.zeros(2)), 0.4, 0.2)


def test_model_stock_keeps_its_angle_when_deltas_are_a_millionth_of_the_weights() -> None:
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(64, 64, generator=generator, dtype=torch.float64)
    deltas = (
        1e-6 * torch.tensor([[1.0, 0.0], [0.5, math.sqrt(0.75)]], dtype=torch.float64) @ torch.eye(2, 4096).double()
    )
    gram = gram_matrix(base.flatten(), deltas)
    c_0, *others = implementation(CATALOG["model_stock"]).coefficients([], {"lambda": 1.0}, gram)
    # cosine ½: t = 1 / 1.5 = ⅔, a third for each expert and for the base
    assert [c_0, *others] == pytest.approx([1 / 3, 1 / 3, 1 / 3], abs=1e-9)


def test_model_stock_with_a_delta_of_zero_and_opposite_deltas_stays_finite() -> None:
    check(merged("model_stock", [BASE, BASE], []), 1.0, 1.0, 1.0, 1.0)
    check(merged("model_stock", [A, BASE], []), 1.0, 1.0, 1.0, 1.0)  # cosine 0 with nothing: t = 0
    check(merged("model_stock", [A, 2 * BASE - A], []), 1.0, 1.0, 1.0, 1.0)  # c = −1 would divide by 0


@pytest.mark.parametrize("t", [0.0, 0.25, 0.5, 1.0])
def test_slerp_walks_the_arc_between_unit_vectors_at_60_degrees(t: float) -> None:
    first, second = torch.tensor([1.0, 0.0]), torch.tensor([0.5, math.sqrt(0.75)])
    out = merged("slerp", [first, second], [1 - t, t], torch.tensor([0.3, -0.2]))
    angle = t * math.pi / 3
    check(out, math.cos(angle), math.sin(angle))
    assert out.norm().item() == pytest.approx(1.0, abs=1e-6)


def test_slerp_is_exact_at_its_ends_and_alone() -> None:
    code, gram = implementation(CATALOG["slerp"]), gram_matrix(BASE, torch.stack([A - BASE, B - BASE]))
    assert code.coefficients([2.0, 0.0], {}, gram) == [0.0, 1.0, 0.0]
    assert code.coefficients([0.0, 2.0], {}, gram) == [0.0, 0.0, 1.0]
    assert code.coefficients([0.7], {}, gram[:2, :2]) == [0.0, 1.0]


def test_slerp_does_not_normalise_what_it_combines() -> None:
    # 90°, t = ½: sin 45° / sin 90° = √½ of each
    root = math.sqrt(0.5)
    check(
        merged("slerp", [torch.tensor([2.0, 0.0]), torch.tensor([0.0, 6.0])], [1, 1], torch.zeros(2)),
        2 * root,
        6 * root,
    )


@pytest.mark.parametrize(
    ("second", "expected"),
    [
        ([2.0, 4.0], [1.5, 3.0]),  # colinear: the line
        ([-1.0, -2.0], [0.0, 0.0]),  # opposite: the line, through zero
        ([-1.0, -2.02], [0.0, -0.01]),  # nearly opposite: an arc would be 200 times as far out
        ([0.0, 0.0], [0.5, 1.0]),  # no direction: the line
    ],
)
def test_slerp_falls_back_to_the_line(second: list[float], expected: list[float]) -> None:
    check(merged("slerp", [torch.tensor([1.0, 2.0]), torch.tensor(second)], [1, 1], torch.ones(2)), *expected)


def test_ties_trims_elects_and_averages_who_agrees() -> None:
    # density ½ keeps 2 of 4: τ̂_A = [4, 0, −2, 0], τ̂_B = [2, 6, 0, 0]
    # equal weights: [(4 + 2)/2, 6/1, −2/1, 0]
    check(merged("ties", [A, B], [1.0, 1.0], density=0.5), 4.0, 7.0, -1.0, 1.0)
    # weights 1, 3: [(4 + 6)/4, 18/3, −2/1, 0]; λ = 2 doubles the update
    check(merged("ties", [A, B], [1.0, 3.0], density=0.5, lambda_=2.0), 6.0, 13.0, -3.0, 1.0)


def test_ties_weighs_the_votes() -> None:
    # density 1, element 2: −2 against +1. Weights 1, 1 elect −; weights 1, 3 elect + (−2 + 3)
    check(merged("ties", [A, B], [1.0, 1.0], density=1.0), 4.0, 7.0, -1.0, 0.25)  # last: (−1 − ½)/2
    check(merged("ties", [A, B], [1.0, 3.0], density=1.0), 3.5, 7.0, 2.0, 0.375)  # last: (−1 − 1½)/4


@pytest.mark.parametrize(("left", "right", "wins"), [(3.0, -2.0, 3.0), (2.0, -3.0, -3.0), (2.0, -2.0, 2.0)])
def test_ties_of_two_opposite_deltas_keeps_the_larger(left: float, right: float, wins: float) -> None:
    zero = torch.zeros(1)
    check(merged("ties", [zero + left, zero + right], [1.0, 1.0], zero, density=1.0), wins)  # a tie elects +


@pytest.mark.parametrize("name", ["ties", "dare_ties"])
def test_an_expert_of_weight_0_does_not_vote(name: str) -> None:
    loud = BASE - 1000.0
    check(merged(name, [loud, B], [0.0, 1.0], density=1.0), *B.tolist())


def test_breadcrumbs_drops_the_largest_and_the_small() -> None:
    base, expert = torch.zeros(5), torch.tensor([5.0, -4.0, 3.0, -2.0, 1.0])
    # γ = 0.2 drops the 5, density 0.4 keeps two below it
    check(merged("breadcrumbs", [expert], [1.0], base, density=0.4, gamma=0.2), 0.0, -4.0, 3.0, 0.0, 0.0)
    check(merged("breadcrumbs", [expert], [0.5], base, density=0.4, gamma=0.0), 2.5, -2.0, 0.0, 0.0, 0.0)
    # both: 1·[0, −4, 3, 0, 0] + 2·[0, 0, 0, 0, 1] with ranks of its own; λ = ½
    other = torch.tensor([0.0, 0.5, 0.25, 9.0, 1.0])  # drops 9, keeps 1 and 0.5
    update = merged("breadcrumbs", [expert, other], [1.0, 2.0], base, density=0.4, gamma=0.2, lambda_=0.5)
    check(update, 0.0, -1.5, 1.5, 0.0, 1.0)


def test_dare_keeps_at_random_and_divides_by_the_density() -> None:
    expert = BASE + 1.0
    update = merged("dare", [expert], [0.5], density=0.25) - BASE
    assert set(update.tolist()) <= {0.0, 2.0}  # ½ · 1 / 0.25


def test_dare_ties_sums_the_kept_that_agree() -> None:
    # density 1 keeps all; weights 1, 1: [4 + 2, 6, −2 (−2 against 1), −1½]; no mean
    check(merged("dare_ties", [A, B], [1.0, 1.0], density=1.0), 7.0, 7.0, -1.0, -0.5)
    zero = torch.zeros(1000)
    update = merged("dare_ties", [zero + 1.0, zero - 2.0], [1.0, 1.0], zero, density=0.5)
    # −2/½ where B is kept (it outvotes A), +1/½ where A alone is, else 0
    assert set(update.tolist()) == {-4.0, 2.0, 0.0}
    shares = [(update == value).float().mean().item() for value in (-4.0, 2.0, 0.0)]
    assert shares == pytest.approx([0.5, 0.25, 0.25], abs=0.06)


def test_dare_is_unbiased() -> None:
    generator, seeds, density = torch.Generator().manual_seed(5), 400, 0.3
    expert = BASE.repeat(16) + torch.randn(64, generator=generator)
    delta, total = expert - BASE.repeat(16), torch.zeros(64)
    for seed in range(seeds):
        context = TensorContext("w", seed, ("expert",))
        parameters = {"density": density}
        total += merge(CATALOG["dare"], BASE.repeat(16), [expert], [1.0], parameters, context=context) - BASE.repeat(16)
    error = (total / seeds - delta).abs()
    sigma = delta.abs() * math.sqrt((1 - density) / density / seeds)  # of Bernoulli(p)·τ/p over the seeds
    assert (error < 4 * sigma + 1e-5).all()


@pytest.mark.parametrize("name", SPARSE)
def test_full_density_is_no_operation_to_the_bit(name: str) -> None:
    expert = BASE + torch.randn(4, generator=torch.Generator().manual_seed(0))
    values = {"density": 1.0, "gamma": 0.0} if name == "breadcrumbs" else {"density": 1.0}
    out = merge(CATALOG[name], BASE, [expert], [1.0], values)
    assert torch.equal(out, BASE + (expert - BASE))


@pytest.mark.parametrize("name", SPARSE)
@pytest.mark.parametrize("shape", [(), (1,), (5, 1), (1, 5)])
@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_tiny_tensors_and_deltas_of_zero_survive_every_density(name: str, shape: tuple[int, ...], scale: float) -> None:
    base = torch.ones(shape)
    experts = [base + scale * i for i in (1, -2)]
    for density in (1e-6, 0.5, 1.0):
        out = merged(name, experts, [1.0, 1.0], base, density=density)
        assert out.shape == shape and out.isfinite().all() and (scale or torch.equal(out, base))


@pytest.mark.parametrize("name", SPARSE)
def test_what_is_prepared_is_masks_that_combine_slice_by_slice(name: str) -> None:
    code, values = implementation(CATALOG[name]), parameters_of(CATALOG[name])
    deltas, weights = torch.randn(3, 6, 4, generator=torch.Generator().manual_seed(1)), torch.tensor([0.5, 1.0, 0.0])
    masks = code.prepare(deltas, values, TensorContext("w", 0, ("x", "y", "z")))
    assert masks.dtype == torch.bool and masks.shape == deltas.shape
    parts = [code.combine(deltas[:, rows], masks[:, rows], weights, values) for rows in (slice(0, 2), slice(2, 6))]
    assert torch.equal(torch.cat(parts), code.combine(deltas, masks, weights, values))


@pytest.mark.parametrize("row", CATALOG.values(), ids=lambda row: row.name)
def test_nan_is_never_hidden(row: Any) -> None:
    spoilt = A.clone()
    spoilt[1] = math.nan
    weights = [1.0, 0.0] if row.weighting == "one_hot" else [1.0, 1.0]
    assert merge(row, BASE, [spoilt, B], weights)[1].isnan()


@pytest.mark.parametrize("name", ["slerp", "model_stock"])
def test_a_method_that_needs_the_gram_matrix_says_so(name: str) -> None:
    code = implementation(CATALOG[name])
    assert code.needs_gram and is_linear(CATALOG[name])
    with pytest.raises(ValueError, match="Gram"):
        code.coefficients([1.0, 1.0], {"lambda": 1.0}, None)


def test_as_many_draws_as_experts_are_demanded() -> None:
    with pytest.raises(ValueError, match="shorter"):
        implementation(CATALOG["dare"]).prepare(torch.zeros(2, 3), {"density": 0.5}, TensorContext("w", 0, ("one",)))
