"""What a merge method looks like to the engine. Three shapes, all pure: nothing is read, written or mutated.

A *linear* method is, for each tensor, a linear combination of base and experts whose coefficients depend
on weights, hyper-parameters and (for the geometric ones) the models' inner products:

    out = c_0 · θ_0 + Σ_t c_t · X_t                    one pass over memory, whatever the method

An *elementwise* method says which elements of each delta τ_t = X_t − θ_0 take part and how they are joined; the
kernel forms the deltas in registers and writes the result in one pass, too:

    out = θ_0 + λ · join_t(keep_t ⊙ τ_t, w_t)          one pass over memory, selections looked up

A *delta* method transforms whole deltas once (`prepare`: expensive, memoised by its prepare-stage
hyper-parameters) and joins the results for every candidate (`combine`: cheap):

    out = θ_0 + combine(prepare(τ), w)                 [T, *shape] -> [*shape]
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from torch import Tensor

from merging.catalog.declare import ArtefactKind
from merging.kernel.competing import Contest
from merging.kernel.program import Cut, Keep, Program

Parameters = Mapping[str, Any]
Role = Literal["matrix", "stack", "embedding", "vector", "other"]
Over = Literal["tensor", "row", "column", "layer", "model"]
Scope = Literal["tensor", "row", "model"]


class Statistics(Protocol):
    """Figures of one tensor of the models, computed when first asked for and kept for the study."""

    def base(self) -> Tensor:
        """The base's tensor [*shape], of its own dtype, for methods that look at more than deltas; read only."""
        ...

    def gram(self, over: Over) -> Tensor:
        """Inner products of (θ_0, τ_1 … τ_T), accumulated in float64.

        Deltas, not experts: a small delta's norm survives, and ⟨X_i, X_j⟩ = ⟨θ_0, θ_0⟩ + ⟨θ_0, τ_i⟩ + ⟨θ_0, τ_j⟩
        + ⟨τ_i, τ_j⟩ follows exactly.

        Args:
            over: `tensor` — the flattened tensors; `row` — each slice along the first dimension (a tensor of fewer
                than two is one row); `column` — each slice along the last; `layer` — all tensors of the layer
                together; `model` — all tensors.

        Returns:
            float64 [T+1, T+1]; [rows, T+1, T+1] or [columns, T+1, T+1].
        """
        ...

    def population(self, scope: Scope) -> int:
        """How many elements a magnitude is ranked among."""
        ...

    def cut(self, expert: int, count: int, scope: Scope) -> Cut:
        """Where the `count` largest magnitudes of an expert's delta end; of equal ones the lowest indices come first.

        Within the model the count is kept to 1 %; of equal magnitudes those of the first tensors come first.
        """
        ...

    def ranks(self, expert: int, scope: Literal["tensor", "row"]) -> Tensor:
        """Rank of each magnitude of an expert's delta, ascending from 0, flat [n]."""
        ...

    def l1_factor(self, expert: int, keep: Keep) -> float:
        """Σ|τ| / Σ|kept τ| of an expert's delta; 1 where either sum is below 1e-7. A pass over it, each time."""
        ...


class Measured(Protocol):
    """What passes over data found of one tensor in every expert (`merging.artefacts`)."""

    def tensor(self, kind: ArtefactKind, expert: int, part: str = "") -> Tensor | None:
        """A tensor of an artefact, read only; None if the pass does not cover this one.

        Args:
            part: which, where an artefact has several for a tensor of the model.
        """
        ...

    def figure(self, kind: ArtefactKind, expert: int, name: str) -> float:
        """A number of the whole artefact."""
        ...


class NothingMeasured:
    """For methods that look at no data: satisfies `Measured`, covers no tensor."""

    def tensor(self, kind: ArtefactKind, expert: int, part: str = "") -> Tensor | None:
        """Always None."""
        return None

    def figure(self, kind: ArtefactKind, expert: int, name: str) -> float:
        """Raises KeyError: nothing was measured."""
        raise KeyError(f"no {kind} was measured")


NOTHING_MEASURED = NothingMeasured()


@dataclass(frozen=True)
class TensorContext:
    """What a method may know of the tensor beside its numbers.

    Attributes:
        name: the tensor's name in the checkpoint.
        seed: the recipe's seed.
        experts: content fingerprints of the experts, in the order of the deltas; with name and seed they key
            every random draw, so that order, sharding and resumption cannot change it.
        statistics: figures of this tensor.
        shape: the tensor's shape.
        role: `matrix` — a linear layer's weight [out, in]; `stack` — several of them [E, …]; `embedding` — an
            embedding or a head; `vector` — one-dimensional or smaller; `other`.
        transposed: whether a matrix is stored [in, out].
        depth: the layer's place from 0 (first, and all before) to 1 (last, and all after).
        measured: what the method's artefacts say of it.
    """

    name: str
    seed: int
    experts: Sequence[str]
    statistics: Statistics
    shape: tuple[int, ...]
    role: Role = "other"
    transposed: bool = False
    depth: float = 0.0
    measured: Measured = NOTHING_MEASURED


class LinearMethod(Protocol):
    """A method that is a linear combination of base and experts, tensor by tensor or slice by slice."""

    def coefficients(
        self, weights: Sequence[float], parameters: Parameters, context: TensorContext
    ) -> Sequence[float] | Tensor:
        """The coefficients (c_0, c_1 … c_T).

        Args:
            weights: one weight per expert, T of them.
            parameters: every hyper-parameter the catalog declares for the method.
            context: the tensor, with the inner products.

        Returns:
            T + 1 numbers; or float64 [T+1, rows, 1 …] or [T+1, 1 …, columns], which broadcasts against the tensor.
        """
        ...


class ElementwiseMethod(Protocol):
    """A method that keeps elements of every delta and joins them element by element."""

    def program(self, weights: Sequence[float], parameters: Parameters, context: TensorContext) -> Program | Contest:
        """What the kernel does with this tensor."""
        ...


class DeltaMethod(Protocol):
    """A method that transforms deltas, then joins them."""

    def prepare(self, deltas: Tensor, parameters: Parameters, context: TensorContext) -> Any:
        """What combine needs, from deltas float32 [T, *shape]. Reads only prepare-stage hyper-parameters."""
        ...

    def combine(self, deltas: Tensor, prepared: Any, weights: Tensor, parameters: Parameters) -> Tensor:
        """The update to add to the base, float32 [*shape], from deltas [T, *shape] and weights float32 [T]."""
        ...


class ContestMethod(DeltaMethod, Protocol):
    """A delta method that the kernel can combine, without the deltas once they are prepared."""

    def contest(self, prepared: Any, weights: Sequence[float], parameters: Parameters) -> Contest:
        """What the kernel does with this tensor: the same as `combine`."""
        ...
