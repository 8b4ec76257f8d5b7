"""A merge of one tensor in a dozen lines, straight from the methods' contract: what the engine must agree with."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from merging import kernel
from merging.arrangement import Part
from merging.catalog import Method, implementation
from merging.layers import Place
from merging.memo import Memo
from merging.methods.contract import DeltaMethod, LinearMethod, Role, Statistics, TensorContext
from merging.models import Stack
from merging.statistics import ModelStatistics
from tests.merging.invented import Invented


def shape_of(row: Method) -> str:
    """Which of the contract's three shapes the method's code has."""
    code = implementation(row)
    found = {"linear": "coefficients", "elementwise": "program", "delta": "combine"}
    return next(shape for shape, attribute in found.items() if hasattr(code, attribute))


def is_linear(row: Method) -> bool:
    """Whether the method's code is a LinearMethod."""
    return shape_of(row) == "linear"


def statistics(base: Tensor, experts: Sequence[Tensor]) -> Statistics:
    """The figures of a model of one tensor."""
    part = Part("w", Place(0, "other"), "w", ("w",) * len(experts))
    models = ModelStatistics(lambda _: Stack(base, list(experts)), [part], Memo(1 << 24))
    return models.of(part)


def context_of(
    base: Tensor,
    experts: Sequence[Tensor],
    *,
    name: str = "w",
    seed: int = 0,
    fingerprints: Sequence[str] | None = None,
    role: Role | None = None,
    transposed: bool = False,
    depth: float = 0.0,
    figures: Statistics | None = None,
) -> TensorContext:
    """What a method sees of a tensor: two dimensions make a matrix, three a stack, fewer a vector."""
    names = tuple(fingerprints or (f"expert {i}" for i in range(len(experts))))
    by_dimensions: dict[int, Role] = {2: "matrix", 3: "stack"}
    return TensorContext(
        name,
        seed,
        names,
        figures or statistics(base, experts),
        tuple(base.shape),
        role or by_dimensions.get(base.dim(), "vector"),
        transposed,
        depth,
        Invented(names, tuple(base.shape), transposed),
    )


def parameters_of(row: Method, parameters: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Every hyper-parameter of the method: its default where nothing else is said."""
    return {p.name: p.default for p in row.parameters} | dict(parameters or {})


def neutral(row: Method) -> dict[str, Any]:
    """Every hyper-parameter at the value at which it does nothing."""
    return {p.name: p.neutral for p in row.parameters}


def merge(
    row: Method,
    base: Tensor,
    experts: Sequence[Tensor],
    weights: Sequence[float],
    parameters: Mapping[str, Any] | None = None,
    **how: Any,
) -> Tensor:
    """The merged tensor, float32 [*shape]; `prepare` is shown the prepare-stage hyper-parameters alone.

    Args:
        how: what `context_of` takes.
    """
    values, base32, code = parameters_of(row, parameters), base.float(), implementation(row)
    context = context_of(base, experts, **how)
    if shape_of(row) == "elementwise":
        out = torch.empty(base.shape)
        kernel.run(code.program(weights, values, context), out, base, experts, torch.float32)
        return out
    stacked = torch.stack([expert.float() for expert in experts])
    if is_linear(row):
        linear: LinearMethod = code
        first, *others = linear.coefficients(weights, values, context)
        assert len(others) == len(experts)
        total = first * base32 + sum((c * x for c, x in zip(others, stacked, strict=True)), torch.zeros_like(base32))
        return total.float()
    delta: DeltaMethod = code
    deltas = stacked - base32
    early = {p.name: values[p.name] for p in row.parameters if p.stage == "prepare"}
    prepared = delta.prepare(deltas, early, context)
    return base32 + delta.combine(deltas, prepared, torch.tensor(weights, dtype=torch.float32), values)
