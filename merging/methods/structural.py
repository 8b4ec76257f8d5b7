"""Methods that take whole tensors from one model: what layer swapping and stacks of layers are made of."""

from collections.abc import Sequence

from merging.methods.contract import LinearMethod, Parameters, TensorContext


class _LayerSwap:
    """scale · the one expert with a weight above zero (arXiv:2410.01335), or scale · θ_0 where none has one."""

    def coefficients(self, weights: Sequence[float], parameters: Parameters, context: TensorContext) -> list[float]:
        chosen = [weight > 0 for weight in weights]
        if sum(chosen) > 1:
            raise ValueError(f"layer_swap takes one expert a group, got weights {list(weights)}")
        return [parameters["scale"] * float(taken) for taken in (not any(chosen), *chosen)]


layer_swap: LinearMethod = _LayerSwap()
