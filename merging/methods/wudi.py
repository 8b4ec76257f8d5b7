"""WUDI: the update that interferes least with what each delta does to its own inputs (arXiv:2503.08099)."""

import torch
from torch import Tensor

from merging.linalg import GramFactors, gram_factors, gram_solve
from merging.methods.contract import DeltaMethod, Parameters
from merging.methods.matrices import MatrixMethod

_BETAS, _EPS = (0.9, 0.999), 1e-8  # Adam's own defaults (arXiv:1412.6980)


class _Wudi(MatrixMethod):
    """λ argmin_M Σ_t ‖(M − τ_t) τ_tᵀ‖² / ‖τ_t‖² [out, in], a least-squares problem on G_t = τ_tᵀ τ_t / ‖τ_t‖².

    `closed` solves it, with a ridge that pulls toward the mean of the deltas. `adam` stops early on the way down from
    Σ τ_t, as the paper does: its learning rate is absolute, so the result depends on how large deltas are.
    A delta that is 0 asks for nothing; the mean counts it.
    """

    def decompose(self, deltas: Tensor, parameters: Parameters) -> GramFactors | Tensor:
        anchor = deltas.mean(0, dtype=torch.float64) if parameters["solver"] == "closed" else deltas.new_zeros(())
        gram, moment = _normal_equations(deltas, anchor)
        if parameters["solver"] == "closed":
            return GramFactors(*(each.float() for each in gram_factors(gram, moment)))
        start = deltas.sum(0, dtype=torch.float64)
        return _descend(start, gram, moment, parameters["steps"], parameters["learning_rate"]).float()

    def join(self, deltas: Tensor, part: GramFactors | Tensor, weights: Tensor, parameters: Parameters) -> Tensor:
        if isinstance(part, Tensor):
            return part.clone()
        return deltas.mean(0).add_(gram_solve(part, parameters["ridge"]))


def _normal_equations(deltas: Tensor, anchor: Tensor) -> tuple[Tensor, Tensor]:
    """Σ G_t [in, in] and Σ (τ_t − anchor) G_t [out, in], float64: M − anchor solves X Σ G_t = Σ (τ_t − anchor) G_t."""
    out, inputs = deltas.shape[1:]
    gram = torch.zeros((inputs, inputs), dtype=torch.float64, device=deltas.device)
    moment = torch.zeros((out, inputs), dtype=torch.float64, device=deltas.device)
    for delta in deltas:
        exact = delta.double()
        if energy := float(exact.square().sum()):
            own = (exact.mT @ exact).div_(energy)
            gram += own
            moment += (exact - anchor) @ own
    return gram, moment


def _descend(start: Tensor, gram: Tensor, moment: Tensor, steps: int, rate: float) -> Tensor:
    """`steps` of Adam from `start` [out, in] on tr M G Mᵀ − 2 tr M momentᵀ, whose gradient is 2 (M G − moment)."""
    point, first, second = start.clone(), torch.zeros_like(start), torch.zeros_like(start)
    for step in range(1, steps + 1):
        gradient = (point @ gram).sub_(moment).mul_(2.0)
        first.lerp_(gradient, 1 - _BETAS[0])
        second.lerp_(gradient.square_(), 1 - _BETAS[1])
        size = (second / (1 - _BETAS[1] ** step)).sqrt_().add_(_EPS)
        point -= rate / (1 - _BETAS[0] ** step) * first / size
    return point


wudi: DeltaMethod = _Wudi()
