"""What a merge method looks like to the engine. Two shapes, both pure: nothing is read, written or mutated.

A *linear* method is, for each tensor, a linear combination of base and experts whose coefficients depend
on weights, hyper-parameters and (for the geometric ones) the models' inner products:

    out = c_0 · θ_0 + Σ_t c_t · X_t                    one pass over memory, whatever the method

A *delta* method transforms each expert's delta τ_t = X_t − θ_0 once (`prepare`: expensive, memoised by its
prepare-stage hyper-parameters) and joins the results for every candidate (`combine`: cheap):

    out = θ_0 + combine(prepare(τ), w)                 [T, *shape] -> [*shape]
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

Parameters = Mapping[str, Any]


@dataclass(frozen=True)
class TensorContext:
    """What a method may know of the tensor beside its numbers.

    Attributes:
        name: the tensor's name in the checkpoint.
        seed: the recipe's seed.
        experts: content fingerprints of the experts, in the order of the deltas; with name and seed they key
            every random draw, so that order, sharding and resumption cannot change it.
    """

    name: str
    seed: int
    experts: tuple[str, ...]


class LinearMethod(Protocol):
    """A method that is a linear combination of base and experts, tensor by tensor."""

    needs_gram: bool
    """Whether `coefficients` reads the Gram matrix (computed once a study and kept)."""

    def coefficients(self, weights: Sequence[float], parameters: Parameters, gram: Tensor | None) -> list[float]:
        """The coefficients (c_0, c_1 … c_T).

        Args:
            weights: one weight per expert, T of them.
            parameters: every hyper-parameter the catalog declares for the method.
            gram: float64 [T+1, T+1], inner products of the flattened (θ_0, τ_1 … τ_T) with τ_t = X_t − θ_0,
                accumulated in float64; None unless `needs_gram`. Deltas, not experts: a small delta's norm
                survives, and ⟨X_i, X_j⟩ = ⟨θ_0, θ_0⟩ + ⟨θ_0, τ_i⟩ + ⟨θ_0, τ_j⟩ + ⟨τ_i, τ_j⟩ follows exactly.
        """
        ...


class DeltaMethod(Protocol):
    """A method that transforms deltas, then joins them."""

    def prepare(self, deltas: Tensor, parameters: Parameters, context: TensorContext) -> Any:
        """What combine needs, from deltas float32 [T, *shape]. Reads only prepare-stage hyper-parameters."""
        ...

    def combine(self, deltas: Tensor, prepared: Any, weights: Tensor, parameters: Parameters) -> Tensor:
        """The update to add to the base, float32 [*shape], from deltas [T, *shape] and weights float32 [T]."""
        ...
