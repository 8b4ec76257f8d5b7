"""Merges one tensor: the only place where a recipe's numbers meet the models' numbers.

Resident model and export both call `Engine.merge`, so what is scored is bit for bit what is written. Arithmetic
is float32 inside (float64 for a float64 checkpoint) and element by element in a fixed order, so neither chunks nor
threads change a bit; the result is cast once.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from typing_extensions import TypeIs

from merging.catalog import Scalar, implementation, method
from merging.errors import InvalidRecipe, NonFiniteCandidate
from merging.fingerprint import is_finite
from merging.memo import Memo
from merging.methods.contract import DeltaMethod, LinearMethod
from merging.models import ModelSet, Stack
from merging.recipe import GroupMerge, Recipe
from merging.schedule import assign

# Elements of a float32 accumulator (4 MiB): the calls' overhead vanishes, and it stays in the last-level cache.
_CHUNK = 1 << 20
# Elements whose products (T+1)² are held at a time. Fixed, and summed along the last axis, which torch never splits
# between threads: a Gram matrix has the same bits on any number of them.
_GRAM_CHUNK = 1 << 13


@dataclass(frozen=True)
class Plan:
    """How one group's tensors are merged: a `GroupMerge` with everything looked up.

    Attributes:
        parameters: every hyper-parameter the method declares, defaults filled in.
        prepare: those that the prepared state depends on, with the seed.
        weights: one per expert, in the order of `ModelSet.names`; 1 for a method that takes none.
        stored: what the result is rounded to; None: as the base's tensor is.
        effect: equal for plans that give the same numbers.
    """

    method: str
    code: LinearMethod | DeltaMethod = field(compare=False)
    parameters: Mapping[str, Scalar] = field(compare=False)
    prepare: tuple[Hashable, ...]
    weights: tuple[float, ...]
    seed: int
    stored: torch.dtype | None

    @property
    def effect(self) -> Hashable:
        """Two plans of equal effect give the same numbers."""
        seed = None if is_linear(self.code) else self.seed
        return self.method, tuple(sorted(self.parameters.items())), self.weights, seed, self.stored


class Engine:
    """Merges the tensors of a model set.

    Args:
        models: the models.
        stack: where tensors come from, if not straight from the models' files (a device, pinned memory).
        memo_bytes: how much prepared state may be kept between calls.
    """

    def __init__(self, models: ModelSet, stack: Callable[[str], Stack] | None = None, memo_bytes: int = 0) -> None:
        self.models = models
        self._stack = stack or models.stack
        self._prepared = Memo(memo_bytes)
        self._grams = Memo(memo_bytes)

    def plans(self, recipe: Recipe) -> Mapping[str, Plan]:
        """How each tensor is merged; begins a new round of merges. Tensors of one group share one plan object.

        Raises:
            InvalidRecipe: it names other experts, or is for another number of layers.
        """
        if set(recipe.experts) != set(self.models.names):
            problem = f"are not the experts that were opened ({', '.join(self.models.names)})"
            raise InvalidRecipe("experts", ", ".join(recipe.experts), problem, "name the same experts in both")
        self._prepared.next_round()
        groups = [_plan(group, self.models.names, recipe) for group in recipe.groups]
        return {name: groups[index] for name, index in assign(recipe, self.models.layout).items()}

    def stored(self, name: str, plan: Plan) -> torch.dtype:
        """The dtype that the merged tensor is rounded to."""
        own = self.models.base.entry(name).dtype
        return plan.stored if plan.stored and own.is_floating_point else own

    @torch.no_grad()
    def merge(self, name: str, plan: Plan, out: Tensor) -> None:
        """Writes one merged tensor, rounded to the stored dtype.

        Args:
            name: the tensor.
            plan: its group's plan.
            out: [*shape], overwritten; of any floating dtype, on the device the stack is on.

        Raises:
            NonFiniteCandidate: the result has NaN or infinity; what `out` holds then is unspecified.
        """
        stack, stored = self._stack(name), self.stored(name, plan)
        if not stored.is_floating_point:  # a buffer of counts or flags: nothing to merge
            out.copy_(stack.base)
        elif not out.is_contiguous():
            self.merge(name, plan, dense := torch.empty_like(out, memory_format=torch.contiguous_format))
            out.copy_(dense)
        elif is_linear(plan.code):
            gram = self._grams.get(name, lambda: gram_matrix(stack)) if plan.code.needs_gram else None
            coefficients = plan.code.coefficients(plan.weights, plan.parameters, gram)
            if not combine_linear(out, stack, coefficients, stored):
                raise NonFiniteCandidate(name, plan.method)
        else:
            merged = self._merge_deltas(name, plan, plan.code, stack).to(stored)
            if not is_finite(merged):
                raise NonFiniteCandidate(name, plan.method)
            out.copy_(merged)

    def _merge_deltas(self, name: str, plan: Plan, code: DeltaMethod, stack: Stack) -> Tensor:
        base = stack.base.float()
        deltas = torch.empty((len(stack.experts), *base.shape), device=base.device)
        for delta, expert in zip(deltas.unbind(), stack.experts, strict=True):
            torch.sub(expert.float(), base, out=delta)
        context = self.models.context(name, plan.seed)
        key = (name, plan.method, plan.prepare)
        prepared = self._prepared.get(key, lambda: code.prepare(deltas, plan.parameters, context))
        weights = torch.tensor(plan.weights, dtype=torch.float32, device=base.device)
        return base + code.combine(deltas, prepared, weights, plan.parameters)


def is_linear(code: LinearMethod | DeltaMethod) -> TypeIs[LinearMethod]:
    """Which of the contract's two shapes a method has."""
    return hasattr(code, "coefficients")


def combine_linear(out: Tensor, stack: Stack, coefficients: Sequence[float], stored: torch.dtype) -> bool:
    """out = Σ c_i · X_i over base and experts, rounded to `stored` on the way.

    A model whose coefficient is 0 is not read, so a single coefficient of 1 gives that model's own bits.

    Args:
        out: contiguous [*shape], overwritten.
        coefficients: c_0 for the base, then one per expert.

    Returns:
        Whether every value of the result is finite.
    """
    models = zip((stack.base, *stack.experts), coefficients, strict=True)
    terms = [(model.reshape(-1), c) for model, c in models if c != 0.0]
    flat = out.view(-1)
    size = min(flat.numel(), _CHUNK) if out.device.type == "cpu" else flat.numel()
    wide = torch.float64 if stored == torch.float64 else torch.float32
    scratch = None if out.dtype == stored == wide else torch.empty(size, dtype=wide, device=out.device)
    finite = True
    for first in range(0, flat.numel(), max(size, 1)):
        part = slice(first, first + size)
        target = flat[part]
        sums = target if scratch is None else scratch[: target.numel()]
        _weighted_sum(sums, [(model[part], c) for model, c in terms])
        if target.dtype == stored:
            rounded = target if sums is target else target.copy_(sums)
        else:
            rounded = sums.to(stored)
            target.copy_(rounded)
        finite = finite and is_finite(rounded)
    return finite


def _weighted_sum(sums: Tensor, terms: Sequence[tuple[Tensor, float]]) -> None:
    """sums = Σ c · x, in the order given, in the dtype of `sums`."""
    if not terms:
        sums.zero_()
        return
    first, c = terms[0]
    sums.copy_(first).mul_(c) if first.dtype != sums.dtype else torch.mul(first, c, out=sums)
    for model, c in terms[1:]:
        sums.add_(model, alpha=c)


def gram_matrix(stack: Stack) -> Tensor:
    """Inner products of (θ_0, τ_1 … τ_T), τ_t = X_t − θ_0, float64 [T+1, T+1]."""
    base = stack.base.reshape(-1)
    experts = [expert.reshape(-1) for expert in stack.experts]
    size = len(experts) + 1
    total = torch.zeros((size, size), dtype=torch.float64, device=base.device)
    step = _GRAM_CHUNK if base.device.type == "cpu" else 1 << 22
    for first in range(0, base.numel(), step):
        part = slice(first, first + step)
        rows = torch.stack([base[part].double(), *(expert[part].double() for expert in experts)])
        rows[1:] -= rows[0]
        total += (rows[:, None] * rows[None]).sum(-1)
    return total.cpu()


def _plan(group: GroupMerge, experts: Sequence[str], recipe: Recipe) -> Plan:
    row = method(group.method)
    parameters: dict[str, Any] = {p.name: p.default for p in row.parameters} | dict(group.parameters)
    prepare = tuple((p.name, parameters[p.name]) for p in row.parameters if p.stage == "prepare")
    weights = tuple(group.weights.get(name, 1.0) for name in experts)
    stored = getattr(torch, recipe.dtype) if recipe.dtype else None
    return Plan(row.name, implementation(row), parameters, (*prepare, recipe.seed), weights, recipe.seed, stored)
