"""Rows of the methods for deltas of low rank. No torch here."""

from merging.catalog.declare import Method
from merging.catalog.parameters import FLOOR, density, lambda_, option, weight

METHODS = (
    Method(
        "knots",
        "bring all experts to one basis of singular directions and merge them there",
        "θ₀ + λ U merge(S V_1 … S V_T), [τ_1|…|τ_T] = U S [V_1|…|V_T], merge: TIES, DARE-TIES or the mean",
        "merging.methods.knots:knots",
        "https://arxiv.org/abs/2410.19735",
        "one matrix product and one pass over the coordinates; an eigendecomposition [out, out] of a matrix once a "
        "study, as far as there is memory to keep the coordinates: as large as the deltas, or smaller for LoRAs",
        "trimmed within a matrix (the authors' code: within the model); directions up to `floor` of the largest are "
        "left out (theirs: up to 1e-5); `join: linear` is the mean of the deltas; tensors that are no matrices, "
        "embeddings and heads take λ times the weighted mean of the deltas",
        needs=("decompositions",),
        normalised=True,
        weight=weight(minimum=0.0),
        parameters=(
            lambda_(0.1, 1.5, searched=True, default=0.6),
            density(0.2, 0.05, 1.0),
            option("join", "how coordinates are merged", "ties", ("ties", "dare_ties", "linear"), neutral="linear"),
            FLOOR,
        ),
    ),
)
