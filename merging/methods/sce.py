"""SCE: select the elements on which the experts differ most, calculate weights from energies, erase minorities.

From FuseChat (arXiv:2408.07990, section 3.3). Its weights follow from the deltas alone.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from merging.kernel import cut, run
from merging.kernel.competing import Contest
from merging.methods.contract import ContestMethod, Parameters, TensorContext
from merging.methods.primitives import steady_sum
from merging.methods.sparse import kept_count

# Elements whose variances in float64 are held at a time: what they are made of stays in the cache.
_CHUNK = 1 << 16


@dataclass(frozen=True)
class _Selected:
    """What was selected and how much of each expert lies there.

    Attributes:
        mask: bool [*shape]; None selects everything.
        energies: mean of (m ⊙ τ_t)² over the whole tensor, one per expert.
    """

    mask: Tensor | None
    energies: tuple[float, ...]


class _Sce:
    """λ Σ_A e_t τ̂_t / Σ_A e_t, τ̂ = m ⊙ τ, e_t = Σ τ̂_t² / Σ_j Σ τ̂_j², A = {t: sign τ̂_t = sign Σ_j τ̂_j}."""

    def prepare(self, deltas: Tensor, parameters: Parameters, context: TensorContext) -> _Selected:
        mask = _most_varied(deltas, parameters["select"])
        size = max(1, deltas[0].numel())
        return _Selected(mask, tuple(_energy(delta, mask) / size for delta in deltas))

    def contest(self, prepared: _Selected, weights: Sequence[float], parameters: Parameters) -> Contest:
        energies = _weights(prepared.energies, parameters["uniform_below"])
        mask = prepared.mask if parameters["mask_output"] else None
        return Contest(tuple(energies), "erased", parameters["lambda"], mask=mask)

    def combine(self, deltas: Tensor, prepared: _Selected, weights: Tensor, parameters: Parameters) -> Tensor:
        update = torch.empty_like(deltas[0])
        contest = self.contest(prepared, weights.tolist(), parameters)
        run(contest, update, torch.zeros_like(update), deltas.unbind(), torch.float32)
        return update


def _most_varied(deltas: Tensor, share: float) -> Tensor | None:
    """bool [*shape]: the share of the elements that vary at all whose variance over the experts is largest.

    float64, then rounded: equal variances stay equal in every order of the experts. Experts without a difference
    (one alone, say) have nothing to select.
    """
    if share >= 1.0:
        return None
    flat = deltas.reshape(len(deltas), deltas[0].numel())
    rounded = torch.cat([_variance(part) for part in torch.split(flat, _CHUNK, dim=1)])
    varied = int(rounded.count_nonzero())
    place = cut(torch.zeros_like(rounded), rounded, kept_count(share, varied) if varied else 0)
    value, index = place.value.to(rounded.device), place.index.to(rounded.device)
    within = torch.arange(rounded.numel(), device=rounded.device) <= index
    return ((rounded > value) | ((rounded == value) & within)).view_as(deltas[0])


def _variance(deltas: Tensor) -> Tensor:
    """float32 [n]: T times the variance over the experts, of deltas [T, n]."""
    mean = torch.zeros_like(deltas[0], dtype=torch.float64)
    for delta in deltas:
        mean.add_(delta)
    mean.div_(len(deltas))
    variance = torch.zeros_like(mean)
    for delta in deltas:
        variance.add_((delta - mean).square_())
    return variance.float()


def _energy(delta: Tensor, mask: Tensor | None) -> float:
    """Σ (m ⊙ τ)², the same on any number of threads."""
    kept: Iterable[Tensor] = torch.split(delta.flatten(), _CHUNK)
    if mask is not None:
        kept = (part * chosen for part, chosen in zip(kept, torch.split(mask.flatten(), _CHUNK), strict=True))
    return math.fsum(float(steady_sum(part.square())) for part in kept)


def _weights(energies: tuple[float, ...], uniform_below: float) -> list[float]:
    """Each expert's share of the energy; equal shares where there is next to none."""
    total = math.fsum(energies)
    if total == 0.0 or total < uniform_below:
        return [1.0 / len(energies)] * len(energies)
    return [energy / total for energy in energies]


sce: ContestMethod = _Sce()
