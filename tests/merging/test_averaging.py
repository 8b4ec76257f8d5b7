"""Averages of whole models against numbers worked by hand, planted structure, and what they must survive."""

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from merging.arrangement import Part
from merging.catalog import CATALOG, implementation, method
from merging.layers import Place
from merging.memo import Memo
from merging.methods.contract import Statistics
from merging.models import Stack
from merging.statistics import ModelStatistics
from tests.merging.driver import context_of, merge, parameters_of

BASE = torch.tensor([1.0, 1.0, 1.0, 1.0])
A = torch.tensor([5.0, 1.0, -1.0, 0.0])  # τ = [ 4, 0, −2, −1]
B = torch.tensor([3.0, 7.0, 2.0, 0.5])  # τ = [ 2, 6,  1, −½]
AVERAGES = ["linear", "uniform", "wise_ft", "ema", "task_arithmetic", "metagpt", "lines", "model_stock", "layer_swap"]


def merged(
    name: str, experts: Sequence[Tensor], weights: Sequence[float] = (), base: Tensor = BASE, **values: Any
) -> Tensor:
    how = {key: values.pop(key) for key in ("depth", "figures") if key in values}
    parameters = {key.removesuffix("_"): value for key, value in values.items()}
    return merge(CATALOG[name], base, experts, weights or [1.0] * len(experts), parameters, **how)


def coefficients(name: str, experts: Sequence[Tensor], weights: Sequence[float], **values: Any) -> list[float]:
    row = CATALOG[name]
    found = implementation(row).coefficients(weights, parameters_of(row, values), context_of(BASE, experts))
    assert isinstance(found, list)
    return found


def check(actual: Tensor, *expected: float) -> None:
    assert_close(actual, torch.tensor(expected), rtol=1e-6, atol=1e-6)


def figures_of(tensors: Sequence[tuple[int, Tensor, Sequence[Tensor]]]) -> list[Statistics]:
    """Statistics of the tensors (layer, base, experts) of one model."""
    stacks = {f"{i}": Stack(base, list(experts)) for i, (_, base, experts) in enumerate(tensors)}
    parts = [Part(f"{i}", Place(layer, "other"), f"{i}", (f"{i}",) * 2) for i, (layer, _, _) in enumerate(tensors)]
    models = ModelStatistics(lambda part: stacks[part.name], parts, Memo(1 << 20))
    return [models.of(part) for part in parts]


def test_linear_is_the_weighted_mean() -> None:
    check(merged("linear", [A, B], [3.0, 1.0]), 4.5, 2.5, -0.25, 0.125)  # ¾ A + ¼ B
    check(merged("linear", [A, B], [30.0, 10.0]), 4.5, 2.5, -0.25, 0.125)


def test_linear_without_normalisation_is_the_weighted_sum() -> None:
    check(merged("linear", [A, B], [1.0, 0.5], normalize=False), 6.5, 4.5, 0.0, 0.25)


@pytest.mark.parametrize("name", ["uniform", "uniform_soup", "run_soup", "checkpoint_soup"])
def test_uniform_is_the_mean_under_each_of_its_names(name: str) -> None:
    check(merged(method(name).name, [A, B, BASE]), 3.0, 3.0, 2 / 3, 0.5)


@pytest.mark.parametrize("alpha", [0.0, 0.25, 1.0])
def test_wise_ft_goes_from_the_base_to_the_mean(alpha: float) -> None:
    mean = 0.75 * A + 0.25 * B
    assert_close(merged("wise_ft", [A, B], [3.0, 1.0], alpha=alpha), (1 - alpha) * BASE + alpha * mean)


def test_wise_ft_is_exact_at_both_ends() -> None:
    assert coefficients("wise_ft", [A, B], [1.0, 2.0], alpha=0.0) == [1.0, 0.0, 0.0]
    assert coefficients("wise_ft", [A], [0.3], alpha=1.0) == [0.0, 1.0]


def test_ema_weighs_checkpoints_by_their_place() -> None:
    # rate ¼: (¾)² for the first, ¼ · ¾ for the second, ¼ for the last, whatever order they are given in
    assert coefficients("ema", [A, B, BASE], [1.0, 2.0, 3.0], rate=0.25) == [0.0, 0.5625, 0.1875, 0.25]
    assert coefficients("ema", [A, B, BASE], [500.0, -1.0, 40.0], rate=0.25) == [0.0, 0.25, 0.5625, 0.1875]


def test_ema_debiased_begins_with_nothing() -> None:
    # (9/16, 3/4, 1) · ¼ / (1 − 27/64) = (9, 12, 16) / 37
    found = coefficients("ema", [A, B, BASE], [1.0, 2.0, 3.0], rate=0.25, debias=True)
    assert found == pytest.approx([0.0, 9 / 37, 12 / 37, 16 / 37])
    assert coefficients("ema", [A, B], [1.0, 2.0], rate=0.0, debias=True) == [0.0, 0.5, 0.5]


def test_ema_takes_experts_at_one_place_for_one_checkpoint() -> None:
    assert coefficients("ema", [A, B, BASE], [2.0, 1.0, 2.0], rate=0.5) == [0.0, 0.25, 0.5, 0.25]


@given(st.lists(st.integers(-99, 99), min_size=1, max_size=6, unique=True), st.floats(0.0, 1.0))
@settings(max_examples=30, deadline=None, derandomize=True, database=None)
def test_ema_is_what_a_running_average_arrives_at(places: list[int], rate: float) -> None:
    experts = [torch.randn(5, generator=torch.Generator().manual_seed(place)) for place in places]
    ordered = [expert for _, expert in sorted(zip(places, experts, strict=True), key=lambda pair: pair[0])]
    running = ordered[0]
    for expert in ordered[1:]:
        running = (1 - rate) * running + rate * expert
    assert_close(merged("ema", experts, [float(p) for p in places], torch.zeros(5), rate=rate), running)
    zero = torch.zeros(5)
    for expert in ordered:
        zero = (1 - rate) * zero + rate * expert
    if rate > 1e-3:
        debiased = merged("ema", experts, [float(p) for p in places], torch.zeros(5), rate=rate, debias=True)
        assert_close(debiased, zero / (1 - (1 - rate) ** len(places)), rtol=1e-4, atol=1e-5)


def test_task_arithmetic_adds_and_subtracts_deltas() -> None:
    check(merged("task_arithmetic", [A, B], [1.0, 0.5]), 6.0, 4.0, -0.5, -0.25)  # 1 + τ_A + ½ τ_B
    check(merged("task_arithmetic", [A, B], [1.0, 0.5], lambda_=0.5), 3.5, 2.5, 0.25, 0.375)
    check(merged("task_arithmetic", [A], [-1.0]), -3.0, 1.0, 3.0, 2.0)  # forgets A


def test_task_arithmetic_divides_by_the_weights_when_asked() -> None:
    check(merged("task_arithmetic", [A, B], [3.0, 1.0], normalize=True), 4.5, 2.5, -0.25, 0.125)
    check(merged("task_arithmetic", [A, B], [1.0, -1.0], normalize=True), 3.0, -5.0, -2.0, 0.5)  # 0: no division


def test_task_arithmetic_recovers_each_expert_on_disjoint_supports() -> None:
    left, right = BASE + torch.tensor([1.0, 2.0, 0.0, 0.0]), BASE + torch.tensor([0.0, 0.0, 3.0, 4.0])
    check(merged("task_arithmetic", [left, right], [1.0, 1.0]), 2.0, 3.0, 4.0, 5.0)


def test_metagpt_weighs_deltas_by_their_squared_norm() -> None:
    base = torch.tensor([2.0, -2.0])
    experts = [base + torch.tensor([1.0, 0.0]), base + torch.tensor([0.0, 3.0])]  # 1 : 9
    check(merged("metagpt", experts, base=base), 2.1, 0.7)
    check(merged("metagpt", experts, base=base, lambda_=2.0), 2.2, 3.4)


def test_metagpt_s_norms_are_the_model_s_the_layer_s_or_the_tensor_s() -> None:
    zero, one, three, four = (torch.tensor([x]) for x in (0.0, 1.0, 3.0, 4.0))
    figures = figures_of([(0, zero, [one, zero]), (0, zero, [zero, three]), (1, zero, [zero, four])])
    for over, share in {"model": 1 / 26, "layer": 1 / 10, "tensor": 1.0}.items():
        check(merged("metagpt", [one, zero], base=zero, figures=figures[0], over=over), share)


def test_metagpt_of_nothing_learned_is_the_base() -> None:
    assert torch.equal(merged("metagpt", [BASE, BASE]), BASE)


@pytest.mark.parametrize(("depth", "scale"), [(0.0, 0.25), (0.5, 0.5), (1.0, 0.75)])
def test_lines_scales_the_delta_with_depth(depth: float, scale: float) -> None:
    mean, total = 0.75 * A + 0.25 * B - BASE, 3 * A + B - 4 * BASE
    values: dict[str, Any] = {"alpha": 0.25, "beta": 0.5, "depth": depth}
    assert_close(merged("lines", [A, B], [3.0, 1.0], **values), BASE + scale * mean)
    assert_close(merged("lines", [A, B], [3.0, 1.0], **values, normalize=False), BASE + scale * total)


@pytest.mark.parametrize(
    ("second", "cosine"), [([0.0, 2.0], 0.0), ([1.0, 1.0], math.sqrt(0.5)), ([2.0, 0.0], 1.0), ([-1.0, 1.0], 0.0)]
)
def test_model_stock_shrinks_by_the_angle_of_two_deltas(second: list[float], cosine: float) -> None:
    base, first, other = torch.tensor([3.0, -2.0]), torch.tensor([1.0, 0.0]), torch.tensor(second)
    t = 2 * cosine / (1 + cosine)  # T = 2; a cosine below 0 (−√½, the last) counts as 0
    mean = (first + other) / 2
    assert_close(merged("model_stock", [base + first, base + other], base=base), base + t * mean)
    halved = merged("model_stock", [base + first, base + other], base=base, lambda_=0.5)
    assert_close(halved, base + 0.5 * t * mean)


def test_model_stock_unclamped_extrapolates_and_stops_at_the_singularity() -> None:
    zero, root = torch.zeros(2), math.sqrt(0.5)
    first, other = torch.tensor([1.0, 0.0]), torch.tensor([-1.0, 1.0])
    t = -2 * root / (1 - root)  # cosine −√½
    assert_close(merged("model_stock", [first, other], base=zero, clamp=False), t * (first + other) / 2)
    check(merged("model_stock", [first, -first], base=zero, clamp=False), 0.0, 0.0)  # 1 + c = 0


def test_model_stock_unclamped_floors_the_lengths_of_tiny_deltas() -> None:
    tiny, zero = torch.tensor([1e-4, 0.0]), torch.zeros(2)
    floored = merged("model_stock", [tiny, tiny], base=zero, clamp=False)  # c = 1e-8 / 1e-6
    assert_close(floored, 0.02 / 1.01 * tiny)
    assert_close(merged("model_stock", [tiny, tiny], base=zero), tiny)


def test_model_stock_averages_the_cosines_of_three_pairs() -> None:
    # e_1, e_1, e_2: cosines 1, 0, 0; c = 1/3; t = 3·(1/3) / (1 + 2/3) = 0.6; mean = [2/3, 1/3]
    deltas = [torch.tensor([1.0, 0.0]), torch.tensor([5.0, 0.0]) / 5, torch.tensor([0.0, 1.0])]
    check(merged("model_stock", deltas, base=torch.zeros(2)), 0.4, 0.2)


def test_model_stock_shrinks_each_row_by_its_own_angle() -> None:
    base = torch.full((3, 2), 7.0)
    first = base + torch.tensor([[1.0, 0.0], [1.0, 0.0], [2.0, 2.0]])
    other = base + torch.tensor([[0.5, math.sqrt(0.75)], [0.0, 1.0], [2.0, 2.0]])
    t = torch.tensor([[2 / 3], [0.0], [1.0]])  # 60°, 90°, 0°
    assert_close(merged("model_stock", [first, other], base=base, over="row"), base + t * ((first + other) / 2 - base))


def test_model_stock_s_angle_may_be_the_layer_s() -> None:
    zero, one = torch.zeros(1), torch.ones(1)
    figures = figures_of([(0, zero, [one, one]), (0, zero, [one, zero]), (1, zero, [zero, one])])
    c = 1 / math.sqrt(2)  # (1, 1) and (1, 0)
    check(merged("model_stock", [one, one], base=zero, figures=figures[0], over="layer"), 2 * c / (1 + c))
    check(merged("model_stock", [one, one], base=zero, figures=figures[0], over="tensor"), 1.0)


def test_model_stock_is_the_best_shrink_toward_the_centre_of_isotropic_noise() -> None:
    generator, size, experts = torch.Generator().manual_seed(3), 40_000, 3
    centre = torch.randn(size, generator=generator)
    noisy = [centre + torch.randn(size, generator=generator) for _ in range(experts)]
    mean = torch.stack(noisy).mean(0)
    best = (mean @ centre / (mean @ mean)).item()  # argmin over t of ‖t · mean − centre‖; ¾ expected
    found = merged("model_stock", noisy, base=torch.zeros(size)) @ mean / (mean @ mean)
    assert found.item() == pytest.approx(best, abs=0.01) and best == pytest.approx(0.75, abs=0.01)


def test_model_stock_keeps_its_angle_when_deltas_are_a_millionth_of_the_weights() -> None:
    base = torch.randn(64, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    angles = torch.tensor([[1.0, 0.0], [0.5, math.sqrt(0.75)]], dtype=torch.float64)
    experts = list(base + 1e-6 * (angles @ torch.eye(2, 4096).double()).reshape(2, 64, 64))
    row = CATALOG["model_stock"]
    found = implementation(row).coefficients([1.0, 1.0], parameters_of(row), context_of(base, experts))
    # cosine ½: t = 1 / 1.5 = ⅔, a third for each expert and for the base; 1e-6 keeps 10 digits in float64
    assert found == pytest.approx([1 / 3, 1 / 3, 1 / 3], abs=1e-9)


@pytest.mark.parametrize("clamp", [True, False])
def test_model_stock_with_a_delta_of_zero_and_opposite_deltas_stays_finite(clamp: bool) -> None:
    check(merged("model_stock", [BASE, BASE], clamp=clamp), 1.0, 1.0, 1.0, 1.0)
    check(merged("model_stock", [A, BASE], clamp=clamp), 1.0, 1.0, 1.0, 1.0)  # cosine 0 with nothing: t = 0
    check(merged("model_stock", [A, 2 * BASE - A], clamp=clamp), 1.0, 1.0, 1.0, 1.0)  # c = −1 would divide by 0


def test_layer_swap_takes_one_expert_whole() -> None:
    assert torch.equal(merged("layer_swap", [A, B], [0.0, 3.0]), B)
    assert torch.equal(merged("layer_swap", [A, B], [0.0, 0.0]), BASE)
    with pytest.raises(ValueError, match="one expert"):
        merged("layer_swap", [A, B], [1.0, 1.0])


def test_layer_swap_multiplies_what_it_takes() -> None:
    check(merged("layer_swap", [A, B], [1.0, 0.0], scale=-0.5), -2.5, -0.5, 0.5, 0.0)
    check(merged("layer_swap", [A, B], [0.0, 0.0], scale=2.0), 2.0, 2.0, 2.0, 2.0)


@pytest.mark.parametrize("name", AVERAGES)
@pytest.mark.parametrize("shape", [(), (1,), (5, 1), (1, 5), (0, 3)], ids=str)
def test_averages_of_tensors_of_any_shape_keep_the_shape(name: str, shape: tuple[int, ...]) -> None:
    base = torch.ones(shape)
    experts = [base + 1.0, base - 2.0] if CATALOG[name].weighting != "one_hot" else [base + 1.0]
    readings: list[dict[str, Any]] = [{}, {"over": "row"}] if name == "model_stock" else [{}]
    for values in readings:
        out = merged(name, experts, base=base, **values)
        assert out.shape == shape and out.isfinite().all()


@pytest.mark.parametrize("values", [{}, {"over": "row"}, {"clamp": False}], ids=str)
def test_model_stock_passes_nan_on(values: dict[str, Any]) -> None:
    base = torch.zeros(2, 2)
    spoilt = torch.tensor([[math.nan, 1.0], [1.0, 0.0]])
    out = merged("model_stock", [spoilt, torch.eye(2)], base=base, **values)
    assert out[0].isnan().all() and bool(out[1].isfinite().all()) == ("over" in values)


@pytest.mark.parametrize("over", ["model", "tensor"])
def test_metagpt_passes_nan_on(over: str) -> None:
    spoilt = torch.tensor([math.nan, 1.0])
    assert merged("metagpt", [spoilt, torch.ones(2)], base=torch.zeros(2), over=over).isnan().all()
