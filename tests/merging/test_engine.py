"""One tensor's merge: the arithmetic, that neither chunks nor threads show in it, and what is refused."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from merging.arrangement import Part
from merging.catalog import CATALOG
from merging.engine import Engine, MergePlan, Plan, combine_linear
from merging.errors import InvalidRecipe, NonFiniteCandidate
from merging.layers import Place
from merging.memo import Memo
from merging.methods.contract import Parameters, TensorContext
from merging.models import ModelSet, Stack
from merging.statistics import column_gram_matrices, gram_matrix, row_gram_matrices
from tests.merging.factories import a_recipe, models_of, open_models

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
SHAPE = (37, 29)


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def a_stack(dtype: torch.dtype, experts: int = 3, shape: tuple[int, ...] = SHAPE, seed: int = 0) -> Stack:
    generator = torch.Generator().manual_seed(seed)
    base = torch.randn(shape, generator=generator)
    deltas = [torch.randn(shape, generator=generator) * 0.1 for _ in range(experts)]
    return Stack(base.to(dtype), [(base + delta).to(dtype) for delta in deltas])


def merged(stack: Stack, coefficients: Sequence[float], stored: torch.dtype, live: torch.dtype | None = None) -> Tensor:
    out = torch.full(stack.base.shape, float("nan"), dtype=live or stored)
    assert combine_linear(out, stack, coefficients, stored)
    return out


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("stored", [*DTYPES, torch.float64])
def test_linear_combination(dtype: torch.dtype, stored: torch.dtype) -> None:
    stack, coefficients = a_stack(dtype), [0.25, -0.5, 1.0, 0.125]
    models = [stack.base, *stack.experts]
    exact = sum((c * x.double() for c, x in zip(coefficients, models, strict=True)), torch.zeros(SHAPE).double())
    found = merged(stack, coefficients, stored)
    assert found.dtype == stored
    room = max(torch.finfo(stored).eps, 2.0**-50) * 2 + (0 if stored == torch.float64 else 2.0**-22)
    torch.testing.assert_close(found.double(), exact, rtol=room, atol=room)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("live", DTYPES)
def test_threads_do_not_show(dtype: torch.dtype, live: torch.dtype, threads: None) -> None:
    stack, coefficients = a_stack(dtype, shape=(401, 1503)), [-0.1, 0.3, 0.7, 0.2]
    expected = merged(stack, coefficients, dtype, live)
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        assert torch.equal(merged(stack, coefficients, dtype, live), expected)


@pytest.mark.parametrize("shape", [(37, 29), (5, 1), (1, 5), (3, 4, 5), (7,)])
def test_coefficients_may_differ_by_row_or_by_column(shape: tuple[int, ...]) -> None:
    stack = a_stack(torch.float32, experts=2, shape=shape)
    models = torch.stack([stack.base, *stack.experts])
    generator = torch.Generator().manual_seed(3)
    for of_slice in ((shape[0], *([1] * (len(shape) - 1))), (*([1] * (len(shape) - 1)), shape[-1])):
        coefficients = torch.rand((3, *of_slice), generator=generator, dtype=torch.float64)
        out = torch.empty(shape)
        assert combine_linear(out, stack, coefficients, torch.float32)
        torch.testing.assert_close(out, (models.double() * coefficients).sum(0).float())


@pytest.mark.parametrize("dtype", [*DTYPES, torch.float64])
def test_one_model_alone_comes_back_bit_for_bit(dtype: torch.dtype) -> None:
    stack = a_stack(dtype)
    stack.base.fill_(float("nan"))  # a coefficient of zero is not read
    assert torch.equal(merged(stack, [0.0, 0.0, 1.0, 0.0], dtype), stack.experts[1])
    assert torch.equal(merged(stack, [0.0] * 4, dtype), torch.zeros(SHAPE, dtype=dtype))


def test_result_is_rounded_to_what_an_export_stores() -> None:
    stack, coefficients = a_stack(torch.bfloat16), [0.3, 0.3, 0.3, 0.1]
    live = merged(stack, coefficients, torch.bfloat16, torch.float32)
    assert torch.equal(live, merged(stack, coefficients, torch.bfloat16).float())
    assert not torch.equal(live, merged(stack, coefficients, torch.float32))


@pytest.mark.parametrize(("stored", "value"), [(torch.float16, 5e4), (torch.float32, 3e38), (torch.bfloat16, 3e38)])
def test_overflow_is_noticed(stored: torch.dtype, value: float) -> None:
    stack = Stack(torch.zeros(3), [torch.tensor([1.0, value, 1.0])])
    assert not combine_linear(torch.empty(3, dtype=stored), stack, [0.0, 2.0], stored)
    assert combine_linear(torch.empty(3, dtype=stored), stack, [0.0, 1.0], stored)


def test_gram_matrix_of_base_and_deltas(monkeypatch: pytest.MonkeyPatch, threads: None) -> None:
    stack = a_stack(torch.bfloat16, shape=(91, 1013))
    rows = torch.stack([x.double().flatten() for x in (stack.base, *stack.experts)])
    rows[1:] -= rows[0].clone()
    found = gram_matrix(stack)
    torch.testing.assert_close(found, rows @ rows.T, rtol=1e-12, atol=1e-9)
    for count in (1, 3):
        torch.set_num_threads(count)
        assert torch.equal(gram_matrix(stack), found)


def test_gram_matrices_of_rows_and_columns() -> None:
    stack = a_stack(torch.bfloat16, experts=2, shape=(11, 7))
    for turn, make in ((False, row_gram_matrices), (True, column_gram_matrices)):
        found = make(stack)
        for index in range(7 if turn else 11):
            slices = [x[:, index] if turn else x[index] for x in (stack.base, *stack.experts)]
            torch.testing.assert_close(found[index], gram_matrix(Stack(slices[0], slices[1:])))
    vector = a_stack(torch.float32, experts=2, shape=(9,))
    torch.testing.assert_close(row_gram_matrices(vector)[0], gram_matrix(vector))


class Counting:
    """A delta method that halves the update and counts what it is asked."""

    def __init__(self) -> None:
        self.prepared = 0

    def prepare(self, deltas: Tensor, parameters: Parameters, context: TensorContext) -> Any:
        self.prepared += 1
        return {"half": (deltas / 2,)}

    def combine(self, deltas: Tensor, prepared: Any, weights: Tensor, parameters: Parameters) -> Tensor:
        return torch.einsum("t...,t->...", prepared["half"][0], weights)


def a_plan(code: Any, weights: tuple[float, ...], density: float = 1.0, seed: int = 0, name: str = "w") -> Plan:
    merge = MergePlan("counting", code, {"density": density}, (("density", density), seed), weights, seed, None)
    return Plan(Part(name, Place(0, "other"), name, (name,) * len(weights)), merge, 1)


@pytest.fixture
def models(tmp_path: Path) -> ModelSet:
    stack = a_stack(torch.float32, experts=2)
    return models_of(tmp_path, *({"w": x, "n": torch.tensor(3)} for x in (stack.base, *stack.experts)))


def test_delta_method_is_prepared_once_for_all_weights(models: ModelSet) -> None:
    code, engine, out = Counting(), Engine(models, memo_bytes=1 << 20), torch.empty(SHAPE)
    base, (first, second) = models.stack("w")
    for weights in ((1.0, 0.0), (0.5, 2.0)):
        engine.merge(a_plan(code, weights), out)
        expected = base + (first - base) * weights[0] / 2 + (second - base) * weights[1] / 2
        torch.testing.assert_close(out, expected)
    assert code.prepared == 1
    engine.merge(a_plan(code, (1.0, 1.0), density=0.5), out)
    engine.merge(a_plan(code, (1.0, 1.0), seed=1), out)
    assert code.prepared == 3
    Engine(models).merge(a_plan(code, (1.0, 1.0)), out)
    assert code.prepared == 4


def test_integers_are_the_bases_and_scattered_outputs_are_filled(models: ModelSet) -> None:
    engine, plan = Engine(models), a_plan(Counting(), (1.0, 1.0))
    engine.merge(a_plan(Counting(), (1.0, 1.0), name="n"), count := torch.tensor(0))
    assert count == 3
    scattered, dense = torch.empty(SHAPE[1], SHAPE[0]).T, torch.empty(SHAPE)
    engine.merge(plan, scattered)
    engine.merge(plan, dense)
    assert torch.equal(scattered, dense)


def test_non_finite_result_is_named(models: ModelSet) -> None:
    plan = a_plan(Counting(), (1e38, 1e39))
    with pytest.raises(NonFiniteCandidate, match="method counting produced non-finite values in tensor w"):
        Engine(models).merge(plan, torch.empty(SHAPE))


@pytest.mark.parametrize("method", CATALOG)
def test_plans_hold_every_parameter_and_weight(tmp_path: Path, method: str) -> None:
    models = open_models(tmp_path, experts=2 if CATALOG[method].experts[1] > 1 else 1)
    plans = Engine(models).plans(a_recipe(models, method, seed=5))
    assert set(plans) == set(models.base.names)
    for plan in plans.values():
        assert set(plan.merge.parameters) == {p.name for p in CATALOG[method].parameters}
        assert len(plan.merge.weights) == len(models.names)


def test_recipe_for_other_experts_is_refused(tmp_path: Path) -> None:
    models = open_models(tmp_path, experts=2)
    recipe = a_recipe(models).model_copy(update={"experts": {"add": "add", "other": "other"}})
    with pytest.raises(InvalidRecipe, match=r"experts: 'add, other' are not .* opened \(add, sort\); name the same"):
        Engine(models).plans(recipe)


@pytest.mark.parametrize("method", CATALOG)
def test_threads_do_not_show_in_any_method(tmp_path: Path, method: str, threads: None) -> None:
    experts = 2 if CATALOG[method].experts[1] > 1 else 1
    stack = a_stack(torch.bfloat16, experts=experts, shape=(257, 301))  # large enough for torch to use its threads
    models = models_of(tmp_path, *({"w": tensor} for tensor in (stack.base, *stack.experts)))
    found = []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        plan = Engine(models).plans(a_recipe(models, method, groups=1, dtype="float32"))["w"]
        Engine(models).merge(plan, out := torch.empty(257, 301))
        found.append(out)
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


def test_memo_keeps_to_its_budget_and_to_what_comes_round() -> None:
    memo, made = Memo(100 << 10), list[str]()

    def make(key: str, size: int) -> None:
        def value() -> Tensor:
            made.append(key)
            return torch.zeros(size << 10, dtype=torch.uint8)

        memo.get(key, value)
        assert memo.used <= 100 << 10

    for _ in range(3):  # c and d find no room, and do not drive out a and b
        memo.next_round()
        for key, size in (("a", 40), ("b", 40), ("c", 40), ("large", 101)):
            make(key, size)
    assert made == ["a", "b", "c", "large", "c", "large", "c", "large"]
    for _ in range(3):  # what nobody asks for any more makes room
        memo.next_round()
        make("d", 80)
    assert made[8:] == ["d", "d"]
