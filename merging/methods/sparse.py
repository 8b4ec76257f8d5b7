"""Methods that keep a part of every delta, chosen by size or by chance. Their prepared state: bool masks [T, *shape].

`prepare` selects, tensor by tensor; `combine` is element-wise, so any slice of deltas and masks may be combined
alone. Sums run over the experts in the order they come.
"""

from torch import Tensor

from merging.methods.contract import DeltaMethod, Parameters, TensorContext
from merging.primitives import agreeing_sums, band_mask, draw_mask, magnitude_mask, masked_sum, mean_, stack_masks


class _Ties:
    """λ · Σ_{t: sign(w_t τ̂_t) = s} w_t τ̂_t / Σ_{same t} w_t, τ̂ trimmed, s = sign(Σ w_t τ̂_t) (arXiv:2306.01708)."""

    def prepare(self, deltas: Tensor, parameters: Parameters, context: TensorContext) -> Tensor:
        density = parameters["density"]
        return stack_masks((magnitude_mask(delta, density) for delta in deltas), deltas)

    def combine(self, deltas: Tensor, prepared: Tensor, weights: Tensor, parameters: Parameters) -> Tensor:
        numerator, denominator = agreeing_sums(deltas, prepared, weights.tolist())
        return mean_(numerator, denominator).mul_(parameters["lambda"])


class _Dare:
    """λ Σ w_t τ̂_t, τ̂ = Bernoulli(density) ⊙ τ / density, whose expectation is τ (arXiv:2311.03099)."""

    def prepare(self, deltas: Tensor, parameters: Parameters, context: TensorContext) -> Tensor:
        density, shape = parameters["density"], deltas.shape[1:]
        draws = (draw_mask(shape, density, context.seed, context.name, expert) for expert in context.experts)
        return stack_masks(draws, deltas)

    def combine(self, deltas: Tensor, prepared: Tensor, weights: Tensor, parameters: Parameters) -> Tensor:
        return masked_sum(deltas, prepared, weights.tolist()).mul_(parameters["lambda"] / parameters["density"])


class _DareTies(_Dare):
    """λ Σ_{t: sign(w_t τ̂_t) = s} w_t τ̂_t, τ̂ drawn as in DARE, s = sign(Σ w_t τ̂_t) (arXiv:2311.03099, 2306.01708).

    Every τ̂ is divided by one density, which elects the same signs: the division comes last.
    """

    def combine(self, deltas: Tensor, prepared: Tensor, weights: Tensor, parameters: Parameters) -> Tensor:
        numerator, _ = agreeing_sums(deltas, prepared, weights.tolist())
        return numerator.mul_(parameters["lambda"] / parameters["density"])


class _Breadcrumbs:
    """λ Σ w_t τ̂_t, τ̂ without its γ largest and all below the next `density` (arXiv:2312.06795), per tensor."""

    def prepare(self, deltas: Tensor, parameters: Parameters, context: TensorContext) -> Tensor:
        density, gamma = parameters["density"], parameters["gamma"]
        return stack_masks((band_mask(delta, density, gamma) for delta in deltas), deltas)

    def combine(self, deltas: Tensor, prepared: Tensor, weights: Tensor, parameters: Parameters) -> Tensor:
        return masked_sum(deltas, prepared, weights.tolist()).mul_(parameters["lambda"])


ties: DeltaMethod = _Ties()
dare: DeltaMethod = _Dare()
dare_ties: DeltaMethod = _DareTies()
breadcrumbs: DeltaMethod = _Breadcrumbs()
