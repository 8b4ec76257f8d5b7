"""PLeaS: the one layer that does best what the layers of several permuted models do (arXiv:2407.02447).

The paper fits all layers together by gradient descent; here each linear layer has its closed form, from mean products
of its inputs on texts. Says nothing about how units are brought into one order, measures nothing and writes no files.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from merging.linalg import gram_factors, gram_solve


def pleas_weight(weights: Tensor, cross: Tensor, w: Sequence[float], ridge: float) -> Tensor:
    """argmin_W ‖Z Wᵀ − Y‖² with Z = Σ_t w_t z_t and Y = Σ_t w_t z_t W_tᵀ: the mean of outputs from the mean of inputs.

    Args:
        weights: W_t of the permuted models, [T, out, in]. A bias is no part of this: its mean Σ w_t b_t is best.
        cross: z_iᵀ z_j / tokens, [T, T, in, in], in the order of `weights`; or [T, T, in], the products of each
            channel with itself alone.
        w: one weight a model; they should sum to 1.
        ridge: pulls toward Σ w_t W_t, in units of the mean squared input; directions without inputs stay there.

    Returns:
        float64 [out, in].
    """
    share = torch.tensor(list(w), dtype=torch.float64, device=weights.device)
    with_mean = torch.einsum("j,tj...->t...", share, cross.double())  # z_tᵀ Z
    moments = torch.stack([times(own, each) for own, each in zip(weights, with_mean, strict=True)])
    return following_weight(weights, with_mean, moments, w, ridge)


def following_weight(weights: Tensor, grams: Tensor, moments: Tensor, w: Sequence[float], ridge: float) -> Tensor:
    """argmin_W Σ_t w_t ‖x_t Wᵀ − y_t‖²: the layer that gives each model's outputs from whatever inputs it gets.

    With y_t = x_t W_tᵀ this is RegMean.

    Args:
        weights, w, ridge: as for `pleas_weight`.
        grams: x_tᵀ x_t / tokens, [T, in, in] or [T, in]; of their weighted sum the symmetric part counts.
        moments: y_tᵀ x_t / tokens, [T, out, in].

    Returns:
        float64 [out, in].
    """
    share = torch.tensor(list(w), dtype=torch.float64, device=weights.device)
    anchor = torch.einsum("t,toa->oa", share, weights.double())
    gram = torch.einsum("t,t...->...", share, grams.double())
    moment = torch.einsum("t,toa->oa", share, moments.double())
    if gram.dim() == 1:
        damped = gram + ridge * gram.mean()
        return anchor + torch.where(damped > 0, (moment - anchor * gram) / damped, 0.0)
    gram = (gram + gram.mT) / 2
    return anchor + _solved(gram, moment - anchor @ gram, ridge)


def times(weight: Tensor, products: Tensor) -> Tensor:
    """W G, float64 [out, in], of products [in, in], or [in] of each channel with itself."""
    exact = products.double()
    return weight.double() @ exact if exact.dim() == 2 else weight.double() * exact


def _solved(gram: Tensor, moment: Tensor, ridge: float) -> Tensor:
    """X with X · (gram + ridge · mean(diag gram) · I) = moment; of many the smallest."""
    if not (torch.isfinite(gram).all() and torch.isfinite(moment).all()):
        return torch.full_like(moment, torch.nan)  # a model before it overflowed: the candidate is none
    damped = gram.clone()
    damped.diagonal().add_(ridge * gram.diagonal().mean())
    factor, failed = torch.linalg.cholesky_ex(damped)
    if ridge and not failed:
        return torch.cholesky_solve(moment.mT, factor).mT
    return gram_solve(gram_factors(gram, moment), ridge)
