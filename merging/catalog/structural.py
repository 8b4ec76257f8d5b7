"""Rows of the methods that compose models of whole layers."""

from merging.catalog.declare import Method, Parameter
from merging.catalog.parameters import weight

METHODS = (
    Method(
        "layer_swap",
        "each group of layers is taken whole from one expert",
        "scale · X_s, s the expert with a weight above 0, or scale · θ₀ where none has one",
        "merging.methods.structural:layer_swap",
        "https://arxiv.org/abs/2410.01335",
        "one pass over memory",
        "transition layers are groups of `linear`; with a recipe's `slices` it stacks layers (passthrough)",
        needs_base=False,
        weighting="one_hot",
        weight=weight(minimum=0.0),
        parameters=(
            Parameter(
                "scale",
                "what the tensor is multiplied by",
                "float",
                1.0,
                1.0,
                0.5,
                1.5,
                -10.0,
                10.0,
                searched=False,
                late=True,
            ),
        ),
        aliases=("passthrough",),
    ),
)
