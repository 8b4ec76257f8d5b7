"""Reinforced agent merging (arXiv:2601.13572): what one expert alone changed stays whole, the rest is averaged.

An element is changed where |τ_t| > ε. For experts trained by reinforcement, whose deltas are sparse; with dense
deltas it degenerates to the average.
"""

from collections.abc import Sequence

import torch

from merging.kernel.competing import Contest
from merging.kernel.program import Cut, Keep, Program
from merging.methods.contract import ElementwiseMethod, Parameters, TensorContext


class _Ram:
    """λ Σ_C w_t τ_t / Σ_C w_t, C = {t: |τ_t| > ε}: over one expert alone its own delta, whatever its weight."""

    def program(self, weights: Sequence[float], parameters: Parameters, context: TensorContext) -> Program:
        changed = Cut(torch.tensor([parameters["epsilon"]], dtype=torch.float32), torch.tensor([-1]))
        return Program(tuple(Keep(weight, above=changed) for weight in weights), "mean", parameters["lambda"])


class _RamPlus:
    """As RAM, elements of one expert alone times f_t = 1 + r · min(ρ_t, α), ρ_t = shared_t / unique_t in the tensor.

    The factor makes up for what averaging takes from the expert's shared elements.
    """

    def program(self, weights: Sequence[float], parameters: Parameters, context: TensorContext) -> Contest:
        strength = (parameters["r"], parameters["alpha"])
        return Contest(tuple(weights), "alone", parameters["lambda"], parameters["epsilon"], strength=strength)


ram: ElementwiseMethod = _Ram()
ram_plus: ElementwiseMethod = _RamPlus()
