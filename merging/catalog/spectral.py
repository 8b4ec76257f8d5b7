"""Rows of the methods that join deltas as matrices, through singular vectors or least squares."""

from merging.catalog.declare import Method, Parameter
from merging.catalog.parameters import FLOOR, lambda_, option, share, weight

_ELSEWHERE = "tensors that are no matrices, embeddings and heads take λ times the {}mean of the deltas"
_DECOMPOSED = "one matrix product or copy a matrix; {} a matrix once a study, as far as there is memory to keep them"
_ISO = "https://arxiv.org/abs/2502.04959"
_RIDGE = Parameter(
    "ridge",
    "pull toward the mean of the deltas, as a share of the mean squared input of the least-squares problem",
    "float",
    1e-2,
    1e-2,
    1e-4,
    1.0,
    1e-8,
    1e6,
    log=True,
)

METHODS = (
    Method(
        "tsv_m",
        "whiten all experts' singular directions together, then sum",
        "θ₀ + λ U⊥ diag(w_t σ_t) V⊥, U⊥ and V⊥ the polar factors of all experts' first `rank_share` r/T singular "
        "directions side by side",
        "merging.methods.spectral:tsv_m",
        "https://arxiv.org/abs/2412.00081",
        _DECOMPOSED.format("T + 2 singular value decompositions"),
        "an expert of weight 0 still takes its directions; "
        "null directions stay out, so that orthogonal low-rank deltas add up exactly; "
        + _ELSEWHERE.format("weighted "),
        needs=("decompositions",),
        weight=weight(),
        parameters=(
            lambda_(0.5, 2.0, searched=True),
            share(
                "rank_share",
                "share of its T-th part of the directions that each expert may use",
                1.0,
                0.25,
                1.0,
                neutral=1.0,
                minimum=1e-3,
            ),
            FLOOR,
        ),
    ),
    Method(
        "iso_c",
        "give every direction of the deltas' sum the same strength",
        "θ₀ + λ σ̄ U V, Σ τ_t = U diag(σ) V, σ̄ the mean of σ",
        "merging.methods.spectral:iso_c",
        _ISO,
        _DECOMPOSED.format("one singular value decomposition"),
        "of the sum, not the mean; null directions stay out of U, V and σ̄; " + _ELSEWHERE.format(""),
        needs=("decompositions",),
        weighting="none",
        parameters=(lambda_(0.5, 2.0, searched=True, default=1.3), FLOOR),
    ),
    Method(
        "iso_cts",
        "give the deltas' common directions and each expert's own the same strength",
        "θ₀ + λ σ̄ U⊥ V⊥ of the first k directions of Σ τ_t and the first (r − k)/T of each delta outside of them",
        "merging.methods.spectral:iso_cts",
        _ISO,
        _DECOMPOSED.format("T + 3 singular value decompositions"),
        "as iso_c; the common directions are those of the outputs; " + _ELSEWHERE.format(""),
        needs=("decompositions",),
        weighting="none",
        parameters=(
            lambda_(0.5, 2.0, searched=True, default=1.3),
            share("common", "share of the directions that is common", 0.8, 0.5, 0.95, neutral=1.0),
            FLOOR,
        ),
    ),
    Method(
        "wudi",
        "the update that interferes least with what each delta does to its own inputs",
        "θ₀ + λ argmin_M Σ ‖(M − τ_t) τ_tᵀ‖² / ‖τ_t‖²",
        "merging.methods.wudi:wudi",
        "https://arxiv.org/abs/2503.08099",
        _DECOMPOSED.format("one eigendecomposition [in, in]"),
        "solved in closed form with a ridge toward the mean; `solver: adam` is the paper's 300 steps from Σ τ_t, as "
        "many products a matrix; " + _ELSEWHERE.format(""),
        needs=("decompositions",),
        weighting="none",
        parameters=(
            lambda_(0.5, 2.0, searched=True),
            _RIDGE,
            option("solver", "closed form, or the paper's early-stopped Adam", "closed", ("closed", "adam")),
            Parameter(
                "steps",
                "steps of Adam",
                "int",
                300,
                300,
                100,
                400,
                0,
                100_000,
                scope="study",
                stage="prepare",
                searched=False,
            ),
            Parameter(
                "learning_rate",
                "of Adam, absolute: it depends on how large deltas are",
                "float",
                1e-5,
                1e-5,
                1e-6,
                1e-3,
                1e-9,
                1.0,
                log=True,
                scope="study",
                stage="prepare",
                searched=False,
            ),
        ),
    ),
)
