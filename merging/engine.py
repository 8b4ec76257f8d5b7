"""Merges one tensor: the only place where a recipe's numbers meet the models' numbers.

Resident model and export both call `Engine.merge`, so what is scored is bit for bit what is written. Arithmetic
is float32 inside (float64 in linear methods of a float64 checkpoint) and element by element in a fixed order, so
neither chunks nor threads change a bit; the result is cast once.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any

import torch
from torch import Tensor
from typing_extensions import TypeIs

from merging import kernel
from merging.arrangement import Part, arrange
from merging.artefacts.measured import Readings, read
from merging.artefacts.shelf import Shelf
from merging.catalog import implementation, method
from merging.errors import InvalidRecipe, NonFiniteCandidate
from merging.fingerprint import is_finite
from merging.memo import Memo
from merging.methods.contract import (
    NOTHING_MEASURED,
    ContestMethod,
    DeltaMethod,
    ElementwiseMethod,
    LinearMethod,
    TensorContext,
)
from merging.models import ModelSet, Stack
from merging.recipe import Merge, Recipe
from merging.roles import role, transposed
from merging.schedule import assign
from merging.statistics import ModelStatistics


@dataclass(frozen=True)
class MergePlan:
    """How tensors are merged: a recipe's `Merge` with everything looked up.

    Attributes:
        parameters: every hyper-parameter the method declares, defaults filled in; a tuple where each expert has
            its own value, in the order of `ModelSet.names`.
        prepare: those that the prepared state depends on, with the seed.
        weights: one per expert, in the order of `ModelSet.names`; 1 for a method that takes none.
        stored: what the result is rounded to; None: as the base's tensor is.
        readings: the artefacts it reads; None: none.
    """

    method: str
    code: LinearMethod | ElementwiseMethod | DeltaMethod
    parameters: Mapping[str, Any]
    prepare: tuple[Hashable, ...]
    weights: tuple[float, ...]
    seed: int
    stored: torch.dtype | None
    readings: Readings | None = None

    @cached_property
    def effect(self) -> Hashable:
        """Two of equal effect give the same numbers."""
        seed = None if is_linear(self.code) else self.seed
        measured = self.readings.digests if self.readings else ()
        return self.method, tuple(sorted(self.parameters.items())), self.weights, seed, self.stored, measured


@dataclass(frozen=True)
class Plan:
    """How one tensor of the result is merged.

    Attributes:
        merge: shared by the tensors of a group.
        last: number of the result's last layer, at least 1.
    """

    part: Part
    merge: MergePlan
    last: int

    @property
    def effect(self) -> Hashable:
        """Two plans of equal effect give the same numbers for a tensor of one name."""
        return self.part.base, self.part.experts, self.merge.effect


class Engine:
    """Merges the tensors of a model set.

    Args:
        models: the models.
        stack: where the tensors of one name come from, if not straight from the models' files (a device, pinned
            memory).
        memo_bytes: how much prepared state and how many figures may be kept between calls.
    """

    def __init__(self, models: ModelSet, stack: Callable[[str], Stack] | None = None, memo_bytes: int = 0) -> None:
        self.models, config = models, models.base.config
        self.shelf = Shelf(models.folders)
        self._source = stack or models.stack
        self._kept = Memo(memo_bytes)
        whole = [Part(name, place, name, (name,) * len(models.names)) for name, place in models.layout.places.items()]
        self._statistics = ModelStatistics(self._stack, whole, self._kept)
        self._kind = cache(lambda name: (role(name, models.shape(name), config), transposed(name, config)))

    def plans(self, recipe: Recipe) -> Mapping[str, Plan]:
        """How each tensor of the result is merged, by name; begins a new round of merges.

        Raises:
            InvalidRecipe: it names other experts, is for another number of layers, or reads an artefact that was not
                measured here.
        """
        _check_opened(recipe, self.models)
        arrangement = arrange(recipe, self.models.layout, self.models.names)
        self._statistics.arranged = list(arrangement.parts.values())
        self._kept.next_round()
        merges = [
            replace(
                _merge_plan(merge, self.models.names, recipe), readings=read(merge, recipe, self.models, self.shelf)
            )
            for merge in (*recipe.groups, *recipe.overrides)
        ]
        depth = max(1, arrangement.layer_count - 1)
        return {
            name: Plan(arrangement.parts[name], merges[index], depth)
            for name, index in assign(recipe, arrangement).items()
        }

    def stored(self, plan: Plan) -> torch.dtype:
        """The dtype that the merged tensor is rounded to."""
        own = self.models.base.entry(plan.part.base).dtype
        return plan.merge.stored if plan.merge.stored and own.is_floating_point else own

    def coefficients(self, plan: Plan) -> Sequence[float] | Tensor:
        """Those of base and experts in a tensor whose method is linear: as `LinearMethod.coefficients`."""
        code, merge = plan.merge.code, plan.merge
        if not is_linear(code):
            raise ValueError(f"{merge.method} is no linear combination of the models")
        return code.coefficients(merge.weights, merge.parameters, self._context(plan))

    @torch.no_grad()
    def merge(self, plan: Plan, out: Tensor) -> None:
        """Writes one merged tensor, rounded to the stored dtype.

        Args:
            plan: the tensor's plan.
            out: [*shape], overwritten; of any floating dtype, on the device the stack is on.

        Raises:
            NonFiniteCandidate: the result has NaN or infinity; what `out` holds then is unspecified.
        """
        stack, stored = self._stack(plan.part), self.stored(plan)
        if not stored.is_floating_point:  # a buffer of counts or flags: nothing to merge
            out.copy_(stack.base)
        elif not out.is_contiguous():
            self.merge(plan, dense := torch.empty_like(out, memory_format=torch.contiguous_format))
            out.copy_(dense)
        elif not self._merged(plan, stack, out, stored):
            raise NonFiniteCandidate(plan.part.name, plan.merge.method)

    def _merged(self, plan: Plan, stack: Stack, out: Tensor, stored: torch.dtype) -> bool:
        """Writes the tensor; whether it is finite."""
        code, merge, context = plan.merge.code, plan.merge, self._context(plan)
        if is_linear(code):
            return combine_linear(out, stack, self.coefficients(plan), stored)
        if is_elementwise(code):
            program = code.program(merge.weights, merge.parameters, context)
            return kernel.run(program, out, stack.base, stack.experts, stored)
        if is_contest(code):
            prepared = self._prepare(plan, code, context, lambda: _deltas(stack.base.float(), stack.experts))
            contest = code.contest(prepared, merge.weights, merge.parameters)
            return kernel.run(contest, out, stack.base, stack.experts, stored)
        merged = self._merge_deltas(plan, code, context, stack).to(stored)
        out.copy_(merged)
        return is_finite(merged)

    def _merge_deltas(self, plan: Plan, code: DeltaMethod, context: TensorContext, stack: Stack) -> Tensor:
        base = stack.base.float()
        deltas = _deltas(base, stack.experts)
        prepared = self._prepare(plan, code, context, lambda: deltas)
        weights = torch.tensor(plan.merge.weights, dtype=torch.float32, device=base.device)
        return base + code.combine(deltas, prepared, weights, plan.merge.parameters)

    def _prepare(self, plan: Plan, code: DeltaMethod, context: TensorContext, deltas: Callable[[], Tensor]) -> Any:
        """What the method prepares from the deltas, made once for each value of what it depends on."""
        merge, part = plan.merge, plan.part
        measured = merge.readings.digests if merge.readings else ()
        if merge.readings and merge.readings.growing:  # nobody will ask for it again
            return code.prepare(deltas(), merge.parameters, context)
        key = ("prepared", part.name, part.base, part.experts, merge.method, merge.prepare, measured)
        return self._kept.get(key, lambda: code.prepare(deltas(), merge.parameters, context))

    def _context(self, plan: Plan) -> TensorContext:
        models, part = self.models, plan.part
        layer = part.place.layer
        kind, turned = self._kind(part.base)
        return TensorContext(
            name=part.name,
            seed=plan.merge.seed,
            experts=models.expert_fingerprints,
            statistics=self._statistics.of(part),
            shape=models.shape(part.base),
            role=kind,
            transposed=turned,
            depth=layer / plan.last if isinstance(layer, int) else float(layer == "after"),
            measured=plan.merge.readings.of(part) if plan.merge.readings else NOTHING_MEASURED,
        )

    def _stack(self, part: Part) -> Stack:
        """The part's tensor in every model; with slices, experts may give another layer's."""
        stack = self._source(part.base)
        if set(part.experts) == {part.base}:
            return stack
        return Stack(stack.base, [self._source(name).experts[i] for i, name in enumerate(part.experts)])


def _check_opened(recipe: Recipe, models: ModelSet) -> None:
    """Raises InvalidRecipe unless the models were opened as the recipe takes them."""
    if set(recipe.experts) != set(models.names):
        problem = f"are not the experts that were opened ({', '.join(models.names)})"
        raise InvalidRecipe("experts", ", ".join(recipe.experts), problem, "name the same experts in both")
    if recipe.tokenizer != models.tokenizer:
        problem = f"is not the vocabulary that the models were opened with ({models.tokenizer})"
        raise InvalidRecipe("tokenizer", recipe.tokenizer, problem, "name the same in both")
    if (recipe.compress and recipe.compress.checked("compress")) != models.compression:
        opened = models.compression.codec if models.compression else "as they are"
        problem = f"is not how the experts were opened ({opened})"
        raise InvalidRecipe("compress", recipe.compress, problem, "open the experts as the recipe takes them")


def is_linear(code: LinearMethod | ElementwiseMethod | DeltaMethod) -> TypeIs[LinearMethod]:
    """Whether a method has the first of the contract's three shapes."""
    return hasattr(code, "coefficients")


def is_elementwise(code: ElementwiseMethod | DeltaMethod) -> TypeIs[ElementwiseMethod]:
    """Whether a method has the second of the contract's three shapes."""
    return hasattr(code, "program")


def is_contest(code: DeltaMethod) -> TypeIs[ContestMethod]:
    """Whether the kernel joins what a method of the third shape has prepared."""
    return hasattr(code, "contest")


def combine_linear(out: Tensor, stack: Stack, coefficients: Sequence[float] | Tensor, stored: torch.dtype) -> bool:
    """out = Σ c_i · X_i over base and experts, rounded to `stored` on the way.

    Args:
        out: contiguous [*shape], overwritten.
        coefficients: c_0 for the base, then one per expert; numbers, or float64 [T+1, …] to be broadcast.

    Returns:
        Whether every value of the result is finite.
    """
    models = (stack.base, *stack.experts)
    if not isinstance(coefficients, Tensor):
        return kernel.weighted_sum(out, models, coefficients, stored)
    if coefficients[0].numel() in (1, out.shape[0]) and coefficients.shape[1] == coefficients[0].numel():
        return kernel.weighted_sum(out, models, coefficients.flatten(1), stored)
    wide = torch.float64 if stored == torch.float64 else torch.float32
    sums = torch.zeros(out.shape, dtype=wide, device=out.device)
    for c, model in zip(coefficients.to(out.device, wide), models, strict=True):
        sums.add_(model.to(wide) * c)
    merged = sums.to(stored)
    out.copy_(merged)
    return is_finite(merged)


def _deltas(base: Tensor, experts: Sequence[Tensor]) -> Tensor:
    """X_t − θ_0, float32 [T, *shape], of a float32 base."""
    deltas = torch.empty((len(experts), *base.shape), device=base.device)
    for delta, expert in zip(deltas.unbind(), experts, strict=True):
        torch.sub(expert.float(), base, out=delta)
    return deltas


def _merge_plan(merge: Merge, experts: Sequence[str], recipe: Recipe) -> MergePlan:
    row = method(merge.method)
    parameters: dict[str, Any] = {p.name: p.default for p in row.parameters}
    for declared in row.parameters:
        name, default = declared.name, declared.default
        value = merge.parameters.get(name, default)
        each = [value.get(e, default) for e in experts] if isinstance(value, dict) else [value]
        typed = tuple(declared.check(one, name) for one in each)
        parameters[name] = typed if isinstance(value, dict) else typed[0]
    prepare = tuple((p.name, parameters[p.name]) for p in row.parameters if p.stage == "prepare")
    weights = tuple(merge.weights.get(name, 1.0) for name in experts)
    stored = getattr(torch, recipe.dtype) if recipe.dtype else None
    return MergePlan(row.name, implementation(row), parameters, (*prepare, recipe.seed), weights, recipe.seed, stored)
