"""A merge of one tensor in a dozen lines, straight from the methods' contract: what the engine must agree with."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from merging.catalog import Method, implementation
from merging.methods.contract import DeltaMethod, LinearMethod, TensorContext


def is_linear(row: Method) -> bool:
    """Whether the method's code is a LinearMethod."""
    return hasattr(implementation(row), "coefficients")


def gram_matrix(base: Tensor, deltas: Tensor) -> Tensor:
    """float64 [T+1, T+1]: inner products of the flattened (θ_0, τ_1 … τ_T)."""
    rows = torch.cat([base[None], deltas]).double().reshape(len(deltas) + 1, -1)
    return rows @ rows.T


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
    *,
    context: TensorContext | None = None,
    gram: Tensor | None = None,
) -> Tensor:
    """The merged tensor, float32 [*shape]; `prepare` is shown the prepare-stage hyper-parameters alone."""
    values, base32 = parameters_of(row, parameters), base.float()
    stacked = torch.stack([expert.float() for expert in experts])
    deltas = stacked - base32
    if is_linear(row):
        linear: LinearMethod = implementation(row)
        if linear.needs_gram and gram is None:
            gram = gram_matrix(base32, deltas)
        first, *others = linear.coefficients(weights, values, gram if linear.needs_gram else None)
        assert len(others) == len(experts)
        return first * base32 + sum((c * x for c, x in zip(others, stacked, strict=True)), torch.zeros_like(base32))
    delta: DeltaMethod = implementation(row)
    context = context or TensorContext("w", 0, tuple(f"expert {i}" for i in range(len(experts))))
    early = {p.name: values[p.name] for p in row.parameters if p.stage == "prepare"}
    prepared = delta.prepare(deltas, early, context)
    return base32 + delta.combine(deltas, prepared, torch.tensor(weights, dtype=torch.float32), values)
