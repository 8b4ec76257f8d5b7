"""PLeaS: the one layer that does best what the layers of several permuted models do (arXiv:2407.02447).

The paper fits all layers together by gradient descent; here each linear layer has its closed form, from inner
products of its inputs in the models on the same tokens. Says nothing about how units are brought into one order, and
writes no files.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from merging.linalg import gram_factors, gram_solve


class CrossGram:
    """Mean inner products of the inputs that one linear layer has in each of T models, gathered batch by batch.

    Args:
        count: T.
        width: the layer's number of inputs.
    """

    def __init__(self, count: int, width: int) -> None:
        self._sum = torch.zeros((count, count, width, width), dtype=torch.float64)
        self._tokens = 0

    def add(self, inputs: Sequence[Tensor]) -> None:
        """Counts one batch in.

        Args:
            inputs: of each model, on the same tokens in the same order and with its units permuted, [..., width].
        """
        flat = [each.detach().reshape(-1, each.shape[-1]).to("cpu", torch.float64) for each in inputs]
        for i, ours in enumerate(flat):
            for j, theirs in enumerate(flat):
                self._sum[i, j] += ours.mT @ theirs
        self._tokens += len(flat[0])

    def mean(self) -> Tensor:
        """z_iᵀ z_j / tokens, float64 [T, T, width, width].

        Raises:
            ValueError: nothing was added.
        """
        if not self._tokens:
            raise ValueError("no inputs were added")
        return self._sum / self._tokens


def pleas_weight(weights: Tensor, cross: Tensor, w: Sequence[float], ridge: float) -> Tensor:
    """argmin_W ‖Z Wᵀ − Y‖² with Z = Σ_t w_t z_t and Y = Σ_t w_t z_t W_tᵀ: the mean of outputs from the mean of inputs.

    Args:
        weights: W_t of the permuted models, [T, out, in]. A bias is no part of this: its mean Σ w_t b_t is best.
        cross: z_iᵀ z_j / tokens, [T, T, in, in], in the order of `weights`.
        w: one weight a model; they should sum to 1.
        ridge: pulls toward Σ w_t W_t, in units of the mean squared input; directions without inputs stay there.

    Returns:
        float64 [out, in].
    """
    share = torch.tensor(list(w), dtype=torch.float64, device=weights.device)
    exact = weights.double()
    of_mean = torch.einsum("t,tjab->jab", share, cross.double())  # Zᵀ z_j
    gram = torch.einsum("j,jab->ab", share, of_mean)
    moment = torch.einsum("t,toa,tba->ob", share, exact, of_mean)
    return _fit(exact, share, (gram + gram.mT) / 2, moment, ridge)


def stacked_weight(weights: Tensor, cross: Tensor, w: Sequence[float], ridge: float) -> Tensor:
    """argmin_W Σ_t w_t ‖z_t Wᵀ − z_t W_tᵀ‖²: RegMean after permutation, which needs no common tokens.

    Args:
        weights, cross, w, ridge: as for `pleas_weight`; of `cross` only the models' own z_tᵀ z_t are used.

    Returns:
        float64 [out, in].
    """
    share = torch.tensor(list(w), dtype=torch.float64, device=weights.device)
    exact, grams = weights.double(), torch.einsum("ttab->tab", cross.double())
    moment = torch.einsum("t,toa,tab->ob", share, exact, grams)
    return _fit(exact, share, torch.einsum("t,tab->ab", share, grams), moment, ridge)


def _fit(weights: Tensor, share: Tensor, gram: Tensor, moment: Tensor, ridge: float) -> Tensor:
    """W with W · gram = moment, pulled toward the mean of the weights."""
    anchor = torch.einsum("t,toa->oa", share, weights)
    return anchor + gram_solve(gram_factors(gram, moment - anchor @ gram), ridge)
