"""Interpolation along the sphere: hand-worked arcs, the mean's own condition, and where there is no arc."""

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from merging.catalog import CATALOG, implementation
from tests.merging.driver import context_of, merge, parameters_of

METHODS = ["slerp", "nuslerp", "nlerp", "karcher"]
MEANS = ["nlerp", "karcher"]
SIXTY = [torch.tensor([1.0, 0.0]), torch.tensor([0.5, math.sqrt(0.75)])]  # unit vectors at 60°
QUICK = settings(max_examples=30, deadline=None, derandomize=True, database=None)


def merged(
    name: str, experts: Sequence[Tensor], weights: Sequence[float], base: Tensor | None = None, **values: Any
) -> Tensor:
    return merge(CATALOG[name], torch.zeros_like(experts[0]) if base is None else base, experts, weights, values)


def coefficients(name: str, experts: Sequence[Tensor], weights: Sequence[float], **values: Any) -> Any:
    row, base = CATALOG[name], torch.zeros_like(experts[0])
    return implementation(row).coefficients(weights, parameters_of(row, values), context_of(base, experts))


def check(actual: Tensor, *expected: float) -> None:
    assert_close(actual, torch.tensor(expected), rtol=1e-6, atol=1e-6)


def vectors(count: int, seed: int, *shape: int) -> list[Tensor]:
    """Vectors with something in common, so that none is opposite their mean."""
    generator = torch.Generator().manual_seed(seed)
    common = torch.randn(shape, generator=generator)
    return [common + torch.randn(shape, generator=generator) for _ in range(count)]


@pytest.mark.parametrize("name", ["slerp", "nuslerp", "karcher"])
@pytest.mark.parametrize("t", [0.0, 0.25, 0.5, 1.0])
def test_an_arc_between_unit_vectors_at_60_degrees_is_walked_evenly(name: str, t: float) -> None:
    out, angle = merged(name, SIXTY, [1 - t, t]), t * math.pi / 3
    check(out, math.cos(angle), math.sin(angle))
    assert out.norm().item() == pytest.approx(1.0, abs=1e-6)


def test_slerp_turns_models_and_the_others_turn_deltas() -> None:
    base = torch.tensor([0.3, -0.2])
    arc = torch.tensor([math.cos(math.pi / 6), 0.5])
    assert_close(merged("slerp", SIXTY, [1, 1], base), arc)
    for name in ("nuslerp", "nlerp", "karcher"):
        assert_close(merged(name, [base + x for x in SIXTY], [1, 1], base), base + arc)
        assert_close(merged(name, SIXTY, [1, 1], base, origin="zero"), arc)
    assert_close(merged("slerp", [base + x for x in SIXTY], [1, 1], base, origin="base"), base + arc)


@pytest.mark.parametrize("name", METHODS)
def test_an_expert_alone_comes_back_to_the_bit(name: str) -> None:
    first, second = vectors(2, 0, 5)
    assert coefficients(name, [first, second], [2.0, 0.0]) == [0.0, 1.0, 0.0]
    assert coefficients(name, [first, second], [0.0, 0.3]) == [0.0, 0.0, 1.0]
    assert coefficients(name, [first], [0.7]) == [0.0, 1.0]


@pytest.mark.parametrize("name", METHODS)
def test_an_expert_of_weight_0_takes_no_part(name: str) -> None:
    first, second = vectors(2, 1, 5)
    *found, unused = coefficients(name, [first, second, torch.full((5,), math.nan)], [3.0, 1.0, 0.0])
    assert unused == 0.0 and found == pytest.approx(coefficients(name, [first, second], [3.0, 1.0]))


@pytest.mark.parametrize("name", ["slerp", "nuslerp"])
def test_slerp_does_not_normalise_what_it_combines(name: str) -> None:
    # 90°, t = ½: sin 45° / sin 90° = √½ of each
    root = math.sqrt(0.5)
    check(merged(name, [torch.tensor([2.0, 0.0]), torch.tensor([0.0, 6.0])], [1, 1]), 2 * root, 6 * root)


@pytest.mark.parametrize("name", ["slerp", "nuslerp"])
@pytest.mark.parametrize(
    ("second", "expected"),
    [
        ([2.0, 4.0], [1.5, 3.0]),  # colinear: the line
        ([-1.0, -2.0], [0.0, 0.0]),  # opposite: the line, through zero
        ([-1.0, -2.02], [0.0, -0.01]),  # nearly opposite: an arc would be 200 times as far out
        ([0.0, 0.0], [0.5, 1.0]),  # no direction: the line
    ],
)
def test_slerp_falls_back_to_the_line(name: str, second: list[float], expected: list[float]) -> None:
    experts = [torch.tensor([1.0, 2.0]), torch.tensor(second)]
    check(merged(name, experts, [1, 1], origin="base"), *expected)
    check(merged(name, experts, [1, 1], torch.ones(2), origin="zero"), *expected)


def test_nuslerp_keeps_an_arc_that_slerp_takes_for_a_line() -> None:
    angle = 0.02  # its cosine is 0.9998
    experts = list(torch.tensor([[1.0, 0.0], [math.cos(angle), math.sin(angle)]], dtype=torch.float64))
    arc, line = coefficients("nuslerp", experts, [3, 1]), coefficients("slerp", experts, [3, 1])
    assert line == pytest.approx([0.0, 0.75, 0.25], abs=1e-12)
    sines = [math.sin(0.75 * angle) / math.sin(angle), math.sin(0.25 * angle) / math.sin(angle)]
    assert arc[1:] == pytest.approx(sines, abs=1e-12) and abs(arc[1] - 0.75) > 1e-6


def test_nlerp_is_the_mean_direction_at_the_mean_length() -> None:
    experts = [torch.tensor([3.0, 0.0]), torch.tensor([0.0, 4.0])]
    root = math.sqrt(0.5)
    check(merged("nlerp", experts, [1, 1]), 3.5 * root, 3.5 * root)
    # weights ¾, ¼: direction (3, 1) / √10, length ¾ · 3 + ¼ · 4 = 3.25
    check(merged("nlerp", experts, [3, 1]), 3.25 * 3 / math.sqrt(10), 3.25 / math.sqrt(10))


def test_karcher_is_the_mean_angle_at_the_mean_length() -> None:
    experts = [torch.tensor([3.0, 0.0]), torch.tensor([0.0, 4.0])]
    angle = math.pi / 8  # a quarter of the way
    check(merged("karcher", experts, [3, 1]), 3.25 * math.cos(angle), 3.25 * math.sin(angle))


@pytest.mark.parametrize("name", MEANS)
def test_the_mean_of_orthogonal_deltas_is_their_diagonal(name: str) -> None:
    check(merged(name, list(6 * torch.eye(3)), [2.0, 2.0, 2.0]), *[6 / math.sqrt(3)] * 3)


@given(st.integers(0, 10**6), st.floats(0.01, 0.99), st.integers(2, 40))
@QUICK
def test_karcher_of_two_is_slerp_of_the_normalised(seed: int, t: float, size: int) -> None:
    first, second = (x / x.norm() for x in vectors(2, seed, size))
    length = 3.0
    out = merged("karcher", [length * first, length * second], [1 - t, t])
    assert_close(out, merged("nuslerp", [length * first, length * second], [1 - t, t]), rtol=1e-5, atol=2e-5)


@given(st.integers(0, 10**6), st.lists(st.floats(0.1, 2.0), min_size=3, max_size=6))
@QUICK
def test_the_pulls_at_karcher_s_mean_cancel(seed: int, weights: list[float]) -> None:
    experts = [x.double() for x in vectors(len(weights), seed, 30)]
    c = torch.tensor(coefficients("karcher", experts, weights), dtype=torch.float64)[1:]
    out = torch.einsum("t,tn->n", c, torch.stack(experts))
    mean_length = sum(w * x.norm() for w, x in zip(weights, experts, strict=True)) / sum(weights)
    assert_close(out.norm(), mean_length)
    mean, pull = out / out.norm(), torch.zeros(30, dtype=torch.float64)
    for w, x in zip(weights, experts, strict=True):
        away = x / x.norm() - (x @ mean / x.norm()) * mean
        pull += w * torch.acos(x @ mean / x.norm()) * away / away.norm()  # w · log_mean(x)
    assert pull.norm() < 1e-6 * sum(weights)


@pytest.mark.parametrize(("degrees", "weights"), [([0, 90, -60], [5, 3, 2]), ([0, 110, -100], [34, 33, 33])])
def test_karcher_on_a_circle_is_the_mean_angle_however_wide(degrees: list[float], weights: list[float]) -> None:
    angles = torch.deg2rad(torch.tensor(degrees, dtype=torch.float64))
    mean = math.radians(sum(w * d for w, d in zip(weights, degrees, strict=True)) / sum(weights))
    experts = list(torch.stack([angles.cos(), angles.sin()], 1))
    check(merged("karcher", experts, weights), math.cos(mean), math.sin(mean))


def test_karcher_leaves_a_saddle_for_the_minimum() -> None:
    angles = torch.deg2rad(torch.tensor([0.0, 120.0, -125.0]))  # around the equator, a little north of it
    experts = list(torch.stack([angles.cos(), angles.sin(), torch.full((3,), 0.05)], 1))
    out = merged("karcher", experts, [4, 3, 3])
    assert out[2] / out.norm() > 0.9  # to the north, not along the equator or to the south


@pytest.mark.parametrize("count", [3, 16])
def test_karcher_arrives_within_four_steps(count: int) -> None:
    experts = list(torch.eye(count, dtype=torch.float64))
    weights = [1.0 + i for i in range(count)]
    found, end = (coefficients("karcher", experts, weights, iterations=n, tol=0.0) for n in (4, 100))
    assert found == pytest.approx(end, abs=1e-9)


@pytest.mark.parametrize(("iterations", "tol", "moves"), [(1, 0.0, True), (100, 1.0, False)])
def test_karcher_stops_when_told(iterations: int, tol: float, moves: bool) -> None:
    experts = [torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.0, 1.0, 0.0]), torch.tensor([0.0, 0.6, 0.8])]
    start, end = coefficients("nlerp", experts, [1, 2, 3]), coefficients("karcher", experts, [1, 2, 3])
    found = coefficients("karcher", experts, [1, 2, 3], iterations=iterations, tol=tol)
    assert (math.dist(found, start) > 1e-6) == moves
    assert math.dist(found, end) > 1e-6  # one step is not enough, nor none


@pytest.mark.parametrize("name", MEANS)
def test_a_delta_of_0_has_length_but_no_direction(name: str) -> None:
    alone, nothing = torch.tensor([3.0, 4.0]), torch.zeros(2)
    check(merged(name, [alone, nothing], [1, 1]), 1.5, 2.0)
    check(merged(name, [alone, nothing, torch.tensor([0.0, 10.0])], [1, 1, 0]), 1.5, 2.0)
    check(merged(name, [nothing, nothing], [1, 2]), 0.0, 0.0)
    three = merged(name, [2 * SIXTY[0], 2 * SIXTY[1], nothing], [1, 1, 2])
    check(three, math.cos(math.pi / 6), 0.5)  # lengths ¼ · 2 + ¼ · 2 + ½ · 0
    little = merged(name, [2001 * SIXTY[0], 2001 * SIXTY[1], nothing], [1, 1, 4000])
    check(little, math.cos(math.pi / 6), 0.5)


@pytest.mark.parametrize("name", METHODS)
def test_a_model_of_next_to_nothing_is_0_though_its_length_is_a_difference(name: str) -> None:
    for seed in range(5):
        base, other, noise = vectors(3, seed, 1000)
        out = merged(name, [1e-10 * noise, other], [1, 3], base, origin="zero")
        assert_close(out, 0.75 * other)


@pytest.mark.parametrize("name", MEANS)
def test_deltas_that_cancel_are_averaged(name: str) -> None:
    ahead, up = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    check(merged(name, [ahead, -3 * ahead], [1, 1]), -1.0, 0.0)  # no direction in common: the line
    check(merged(name, [ahead, -3 * ahead], [1, 1.0001]), -2.0003 / 2.0001, 0.0)  # next to none
    check(merged(name, [ahead, -ahead, up, -2 * up], [1, 1, 1, 1]), 0.0, -0.25)


def test_karcher_has_no_mean_with_a_delta_opposite_to_it() -> None:
    ahead = torch.tensor([1.0, 0.0])
    check(merged("karcher", [ahead, ahead, -4 * ahead], [1, 1, 1]), -2 / 3, 0.0)
    check(merged("nlerp", [ahead, ahead, -4 * ahead], [1, 1, 1]), 2.0, 0.0)  # the majority's direction


@pytest.mark.parametrize("name", METHODS)
def test_models_a_little_apart_give_the_line_around_zero(name: str) -> None:
    base = torch.randn(64, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    experts = [base + 1e-6 * x for x in vectors(2, 1, 64, 64)]
    row = CATALOG[name]
    found = implementation(row).coefficients([3, 1], parameters_of(row, {"origin": "zero"}), context_of(base, experts))
    assert found == pytest.approx([0.0, 0.75, 0.25], abs=1e-5)


@pytest.mark.parametrize("name", ["nuslerp", "nlerp", "karcher"])
def test_deltas_a_millionth_of_the_weights_keep_their_angle(name: str) -> None:
    base = torch.randn(64, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    deltas = (torch.stack(SIXTY).double() @ torch.eye(2, 4096).double()).reshape(2, 64, 64)
    row, half = CATALOG[name], 1 / math.sqrt(3)  # of each, at 60° and t = ½: sin 30° / sin 60°
    found = implementation(row).coefficients([1, 1], parameters_of(row), context_of(base, list(base + 1e-6 * deltas)))
    assert found == pytest.approx([1 - 2 * half, half, half], abs=1e-8)


@pytest.mark.parametrize("origin", ["zero", "base"])
@pytest.mark.parametrize("shape", [(6, 4), (3, 4, 5)], ids=str)
@pytest.mark.parametrize("name", METHODS)
def test_rows_and_columns_are_merged_each_by_itself(name: str, shape: tuple[int, ...], origin: str) -> None:
    base, *experts = vectors(3, 7, *shape)
    experts[1][2] = base[2]  # a row that one expert left as it was
    weights = [0.5, 1.5]
    for over, axis in (("row", 0), ("column", len(shape) - 1)):
        out = merged(name, experts, weights, base, over=over, origin=origin)
        each = [
            merged(name, [x.select(axis, i) for x in experts], weights, base.select(axis, i), origin=origin)
            for i in range(shape[axis])
        ]
        assert_close(out, torch.stack(each, axis))
        assert not torch.allclose(out, merged(name, experts, weights, base, origin=origin), atol=1e-4)


@pytest.mark.parametrize("shape", [(), (1,), (4,), (5, 1), (1, 5), (0, 3)], ids=str)
@pytest.mark.parametrize("origin", ["zero", "base"])
@pytest.mark.parametrize("name", METHODS)
def test_tensors_of_any_shape_stay_finite(name: str, origin: str, shape: tuple[int, ...]) -> None:
    base = torch.ones(shape)
    for deltas in ([1.0, -2.0], [0.0, 0.0], [-1.0, -1.0], [1.0, 0.0]):
        for over in ("tensor", "row", "column"):
            out = merged(name, [base + delta for delta in deltas], [1, 1], base, over=over, origin=origin)
            assert out.shape == shape and out.isfinite().all()


@pytest.mark.parametrize("origin", ["zero", "base"])
@pytest.mark.parametrize("name", METHODS)
def test_nan_reaches_the_result_and_only_its_own_row(name: str, origin: str) -> None:
    base, *experts = vectors(3, 2, 2, 3)
    experts[0][0, 1] = math.nan
    assert merged(name, experts, [1, 1], base, origin=origin).isnan().all()
    by_row = merged(name, experts, [1, 1], base, origin=origin, over="row")
    assert by_row[0].isnan().all() and by_row[1].isfinite().all()
    experts[1][0] = 0.0 if origin == "zero" else base[0]  # beside a vector without direction, too
    assert merged(name, experts, [1, 1], base, origin=origin, over="row")[0, 1].isnan()
