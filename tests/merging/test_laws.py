"""What every merge method obeys, whatever it is: laws over the whole catalog, a new row included.

A method that breaks a law by design stands in `BY_DESIGN` with the reason. Most numbers lie on a coarse grid
(multiples of 1/8), where float32 sums are exact: a vote that is tied stays tied in every order.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from merging import kernel
from merging.catalog import CATALOG, Method, Parameter, implementation
from merging.methods.contract import Statistics
from tests.merging.driver import context_of, is_linear, merge, neutral, parameters_of, shape_of, statistics

SHAPES = [(), (1,), (8,), (1, 5), (5, 1), (6, 4), (3, 4, 5), (0, 4), (2, 0, 3)]
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
DRAWS = {row.name for row in CATALOG.values() if "masks" in row.needs}  # methods that draw at random
READINGS = {"origin", "normalize", "solver", "restore"}  # other methods under one name
SUMS = ("task_arithmetic", "dare", "dare_ties", "della_linear", "breadcrumbs", "breadcrumbs_ties", "composable_sft")

_WHOLE = "selects over the whole tensor (the kernel's pieces: tests/merging/kernel)"
_ANGLE = "the angle is between the models themselves, not their deltas"
_SUM = "a weighted sum: two equal experts of weight 1 count twice"
_SCALED = "its scale multiplies the model itself, base and all"
_SCALES = "weights scale the deltas: equal experts of weight ½ give half of what they learned"
_TAKES_ONE = "takes one expert"
_ZEROS = "refuses experts that are 0 in different places, and zeros do not move (test_sparse_soup.py)"
_ABSOLUTE = "compares deltas with a number that does not scale with them"
_SOFTMAX = "importance goes by the softmax of the models' rows, which is no linear function of them"
_FLAT = "every direction gets the same strength"
_KEPT = "a learned share of the base is kept"
_MASKED = "what no trained mask keeps stays the base's"
_MATRICES = "decomposes whole matrices"
_MEASURED = "what was measured is of the whole tensor"
_COUNTS = "counts, quantiles and blocks are those of the whole tensor"
TRAINED = ("graft_trained", "localize_and_stitch_trained")
# elementwise, but they select nothing over the tensor
CONTESTS = ("magmax", "emr", "consensus", "nearswap")
BY_DESIGN: dict[str, dict[str, str]] = {
    "permutation": {"sparse_soup": _ZEROS},
    "purity": {"sparse_soup": _ZEROS},
    "nothing_learned": {"layer_swap": _SCALED},
    "one_expert_alone": {
        "arcee_fusion": "imports outliers alone, whatever the threshold",
        "pcb": "the least element of an expert is always dropped",
        **dict.fromkeys(("iso_c", "iso_cts"), _FLAT),
        "model_stock": "one delta has no angle to another: two experts are the fewest",
        "adaptive_averaging": _KEPT,
        **dict.fromkeys(TRAINED, _MASKED),
    },
    "duplicates": {
        **dict.fromkeys(("magmax", "emr", "consensus", "cabs", "pcb"), _SCALES),
        **dict.fromkeys(("arcee_fusion", "graft", "nearswap"), _TAKES_ONE),
        **dict.fromkeys(SUMS, _SUM),
        **dict.fromkeys(("iso_c", "iso_cts"), _FLAT),
        "tsv_m": "each expert keeps only its T-th part of the directions",
        "adaptive_averaging": _KEPT,
        **dict.fromkeys(TRAINED, _MASKED),
    },
    "shift": {
        "arcee_fusion": _SOFTMAX,
        "sparse_soup": _ZEROS,
        "slerp": _ANGLE,
        "layer_swap": _SCALED,
    },
    "scale": {
        **dict.fromkeys(("nearswap", "ram", "ram_plus"), _ABSOLUTE),
        "arcee_fusion": _SOFTMAX,
        "sparse_soup": _ZEROS,
        "slerp": _ANGLE,
        "layer_swap": _SCALED,
    },
    "slices": {
        **dict.fromkeys(("arcee_fusion", "cabs", "pcb", "ram_plus", "sce"), _COUNTS),
        **dict.fromkeys(("tsv_m", "iso_c", "iso_cts", "wudi", "knots"), _MATRICES),
        **{row.name: _MEASURED for row in CATALOG.values() if row.artefacts},
        **{row.name: _WHOLE for row in CATALOG.values() if shape_of(row) == "elementwise" and row.name not in CONTESTS},
    },
}


def rows(law: str = "") -> pytest.MarkDecorator:
    """The catalog's rows; those that break the law by design are skipped with the reason."""
    return pytest.mark.parametrize("row", [_row(row, BY_DESIGN.get(law, {})) for row in CATALOG.values()])


def _row(row: Method, exempt: dict[str, str]) -> Any:
    marks = [pytest.mark.skip(reason=exempt[row.name])] if row.name in exempt else []
    return pytest.param(row, id=row.name, marks=marks)


def law(test: Callable[..., None]) -> Callable[..., None]:
    """Run with drawn data: reproducible, nothing written to disk, no clock (the machine may be busy)."""
    return settings(max_examples=20, deadline=None, derandomize=True, database=None)(given(st.data())(test))


@dataclass(frozen=True)
class Problem:
    """Everything one merge of one tensor needs."""

    row: Method
    base: Tensor
    experts: list[Tensor]
    weights: list[float]
    parameters: dict[str, Any]
    name: str
    seed: int
    fingerprints: tuple[str, ...]

    def merge(self, figures: Statistics | None = None) -> Tensor:
        how = {"name": self.name, "seed": self.seed, "fingerprints": self.fingerprints, "figures": figures}
        return merge(self.row, self.base, self.experts, self.weights, self.parameters, **how)


@st.composite
def problems(draw: st.DrawFn, row: Method, *, fewest: int = 1, grid: bool = True) -> Problem:
    low, high = max(fewest, row.experts[0]), min(4, row.experts[1])
    experts = draw(st.integers(low, max(low, high)))
    shape, dtype = draw(st.sampled_from(SHAPES)), draw(st.sampled_from(DTYPES))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    base = _numbers(shape, generator, grid)
    deltas = [_numbers(shape, generator, grid) * draw(st.sampled_from([1.0, 1.0, 0.0])) for _ in range(experts)]
    names = draw(st.permutations([f"{i:064x}" for i in range(experts)]))
    return Problem(
        row,
        base.to(dtype),
        [(base + delta).to(dtype) for delta in deltas],
        draw(_weights(row, experts)),
        {p.name: draw(_values(p)) for p in row.parameters},
        draw(st.sampled_from(["a", "layers.0.w"])),
        draw(st.integers(0, 3)),
        tuple(names),
    )


def _numbers(shape: tuple[int, ...], generator: torch.Generator, grid: bool) -> Tensor:
    if grid:
        return torch.randint(-16, 17, shape, generator=generator).float() / 8
    return torch.randn(shape, generator=generator)


def _weights(row: Method, experts: int) -> st.SearchStrategy[list[float]]:
    if row.weighting == "one_hot":
        return st.integers(0, experts - 1).map(lambda chosen: [float(i == chosen) for i in range(experts)])
    if row.weight is None:
        return st.just([1.0] * experts)
    steps = [x for x in (-0.5, 0.0, 0.25, 1.0, 2.0) if x >= row.weight.minimum]
    drawn = st.lists(st.sampled_from(steps), min_size=experts, max_size=experts)
    return drawn.filter(any) if row.normalised else drawn


def _values(parameter: Parameter) -> st.SearchStrategy[Any]:
    if parameter.name in READINGS:
        return st.just(parameter.default)
    if parameter.kind in ("bool", "choice"):
        return st.sampled_from(parameter.choices or (False, True))
    if parameter.kind == "int":
        return st.sampled_from([int(parameter.neutral), int(parameter.default), int(parameter.low)])
    named = [parameter.neutral, parameter.default, parameter.low, parameter.high]
    return st.one_of(st.sampled_from(named), st.floats(parameter.low, parameter.high))


def close(left: Tensor, right: Tensor) -> None:
    assert torch.isfinite(left).all()
    assert_close(left, right, rtol=1e-5, atol=2e-5)


@rows("permutation")
@law
def test_the_order_of_the_experts_does_not_matter(row: Method, data: st.DataObject) -> None:
    problem = data.draw(problems(row))
    if "ranks" in row.needs:  # what is divided element by element leaves the grid, and a tied vote is tied no more
        problem = replace(problem, parameters=problem.parameters | {"rescale": "none"})
    order = data.draw(st.permutations(range(len(problem.experts))))
    names = tuple(problem.fingerprints[i] for i in order)
    permuted = replace(
        problem,
        experts=[problem.experts[i] for i in order],
        weights=[problem.weights[i] for i in order],
        fingerprints=names,
    )
    close(permuted.merge(), problem.merge())


@rows("nothing_learned")
@law
def test_experts_equal_to_the_base_give_the_base(row: Method, data: st.DataObject) -> None:
    problem = data.draw(problems(row, grid=data.draw(st.booleans())))
    same = replace(problem, experts=[problem.base] * len(problem.experts))
    close(same.merge(), problem.base.float())


@rows("one_expert_alone")
@law
def test_one_expert_alone_comes_back(row: Method, data: st.DataObject) -> None:
    problem = data.draw(problems(row, grid=data.draw(st.booleans())))
    alone = replace(
        problem,
        experts=problem.experts[:1],
        weights=[1.0],
        parameters=neutral(row),
        fingerprints=problem.fingerprints[:1],
    )
    close(alone.merge(), problem.experts[0].float())


@rows("duplicates")
@law
def test_equal_experts_come_back(row: Method, data: st.DataObject) -> None:
    problem = data.draw(problems(row, fewest=2, grid=data.draw(st.booleans())))
    equal = replace(problem, experts=[problem.experts[0]] * len(problem.experts), parameters=neutral(row))
    close(equal.merge(), problem.experts[0].float())


@rows("shift")
@law
def test_a_shift_of_every_model_shifts_the_result(row: Method, data: st.DataObject) -> None:
    problem = data.draw(problems(row))
    shift = _numbers(tuple(problem.base.shape), torch.Generator().manual_seed(1), True)
    moved = replace(problem, base=problem.base + shift, experts=[expert + shift for expert in problem.experts])
    close(moved.merge(), problem.merge() + shift)


@rows("scale")
@law
def test_scaled_deltas_scale_the_update(row: Method, data: st.DataObject) -> None:
    problem = data.draw(problems(row))
    factor = data.draw(st.sampled_from([0.5, 2.0, 3.0]))
    base = problem.base.float()
    scaled = replace(problem, base=base, experts=[base + factor * (x.float() - base) for x in problem.experts])
    close(scaled.merge() - base, factor * (problem.merge() - base))


@rows("slices")
@law
def test_slices_merge_to_the_slices_of_the_whole(row: Method, data: st.DataObject) -> None:
    problem = data.draw(problems(row, grid=False))
    base, experts = problem.base.float().flatten(), [expert.float().flatten() for expert in problem.experts]
    figures = statistics(base, experts) if is_linear(row) else None
    cut = data.draw(st.integers(0, base.numel()))
    parts = [
        replace(problem, base=base[part], experts=[expert[part] for expert in experts]).merge(figures)
        for part in (slice(0, cut), slice(cut, None))
    ]
    close(torch.cat(parts), problem.merge(figures).flatten())


@rows("repetition")
@law
def test_the_same_seed_gives_the_same_bits_whatever_ran_before(row: Method, data: st.DataObject) -> None:
    problem = data.draw(problems(row, grid=False))
    once = problem.merge()
    torch.manual_seed(data.draw(st.integers(0, 9)))  # the global generator is not read
    replace(problem, name="another").merge()
    assert torch.equal(problem.merge(), once)


@rows("seed")
def test_the_seed_matters_only_to_methods_that_draw(row: Method) -> None:
    generator = torch.Generator().manual_seed(0)
    experts = [torch.randn(64, generator=generator) for _ in range(2)]
    weights = [1.0, 0.0] if row.weighting == "one_hot" else [1.0, 1.0]

    def merged(seed: int, name: str, prefix: str) -> Tensor:
        return merge(
            row, torch.zeros(64), experts, weights, name=name, seed=seed, fingerprints=(f"{prefix}0", f"{prefix}1")
        )

    first = merged(0, "w", "a")
    others = [merged(1, "w", "a"), merged(0, "v", "a")]
    if not row.artefacts:  # of other experts something else is measured
        others.append(merged(0, "w", "b"))
    for other in others:
        assert torch.equal(first, other) == (row.name not in DRAWS)


@rows("purity")
@law
def test_nothing_given_is_changed(row: Method, data: st.DataObject) -> None:
    problem = data.draw(problems(row))
    base = problem.base.float()
    deltas, weights = torch.stack(problem.experts).float() - base, torch.tensor(problem.weights)
    context, code = context_of(problem.base, problem.experts), implementation(row)
    parameters = parameters_of(row, problem.parameters)
    given_ = [deltas, weights, problem.base, *problem.experts]
    copies, asked = [x.clone() for x in given_], dict(parameters)
    if is_linear(row):
        code.coefficients(problem.weights, parameters, context)
    elif shape_of(row) == "elementwise":
        program, out = code.program(problem.weights, parameters, context), torch.empty(base.shape)
        kernel.run(program, out, problem.base, problem.experts, torch.float32)
    else:
        prepared = code.prepare(deltas, parameters, context)
        once = code.combine(deltas, prepared, weights, parameters)
        assert torch.equal(code.combine(deltas, prepared, weights, parameters), once)
        assert once.shape == base.shape and once.dtype == torch.float32
    assert all(torch.equal(x, copy) for x, copy in zip(given_, copies, strict=True)) and parameters == asked


@pytest.mark.parametrize("row", CATALOG.values(), ids=lambda row: row.name)
def test_nan_is_never_hidden(row: Method) -> None:
    experts = [torch.tensor([5.0, 1.0, -1.0, 0.25]), torch.tensor([3.0, 7.0, 2.0, 0.5])][: row.experts[1]]
    experts[0][1] = math.nan
    weights = [float(i == 0) if row.weighting == "one_hot" else 1.0 for i in range(len(experts))]
    assert merge(row, torch.ones(4), experts, weights)[1].isnan()


def test_every_exception_names_a_method_and_a_reason() -> None:
    for exempt in BY_DESIGN.values():
        assert exempt and set(exempt) <= set(CATALOG) and all(exempt.values())
    assert set(CATALOG) >= DRAWS
