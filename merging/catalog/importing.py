"""Rows of the methods that import a part of one expert."""

from merging.catalog.declare import Method, Parameter
from merging.catalog.parameters import lambda_, scope

_ALL = 1e4  # no delta is as large: nothing is clamped

METHODS = (
    Method(
        "nearswap",
        "take over elements where base and expert lie near each other, move the others by no more than t",
        "θ₀ + clamp(τ, −t, t)",
        "merging.methods.importing:nearswap",
        "https://huggingface.co/alchemonaut/QuartetAnemoi-70B-t0.0001",
        "one pass over memory",
        "exact; mergekit's weights stop at |τ| = 1e-6; the author saw quality fall above t = 0.0025",
        experts=(1, 1),
        weighting="none",
        parameters=(
            Parameter("t", "how far an element may move", "float", 1e-4, _ALL, 1e-6, 1e-2, 0.0, _ALL, log=True),
        ),
    ),
    Method(
        "arcee_fusion",
        "import the elements whose importance is an outlier: size times the divergence of their row",
        "θ₀ + τ ⊙ [I ≥ median I + c · IQR I], I = |τ| · KL(softmax X ‖ softmax θ₀) along the last dimension",
        "merging.methods.importing:arcee_fusion",
        "https://github.com/arcee-ai/mergekit",
        "one pass over the delta; divergences and quartiles once a study",
        "exact quartiles and float64 divergences; mergekit draws a million elements without a seed; c is 1.5 there",
        experts=(1, 1),
        weighting="none",
        parameters=(Parameter("c", "interquartile ranges above the median", "float", 1.5, 0.0, 0.0, 3.0, 0.0, 100.0),),
    ),
    Method(
        "graft",
        "import the few elements that fine-tuning moved furthest, over the whole model",
        "θ₀ + λ m ⊙ τ, m the `density` largest magnitudes of the model",
        "merging.methods.sparse:composable_sft",
        "https://arxiv.org/abs/2302.06600",
        "one pass over memory; a histogram of magnitudes once a study",
        "the start of the paper's search (highest movement); its trained masks need data",
        needs=("magnitudes", "model statistics"),
        experts=(1, 1),
        weighting="none",
        parameters=(
            lambda_(0.5, 1.5, searched=True),
            Parameter(
                "density",
                "share of the delta's elements that is kept",
                "float",
                1e-3,
                1.0,
                1e-4,
                1e-2,
                1e-6,
                1.0,
                log=True,
                stage="prepare",
            ),
            scope("model"),
        ),
    ),
)
