"""Rows of the methods that average whole models."""

from collections.abc import Sequence

from merging.catalog.declare import Method, Parameter, Scope
from merging.catalog.parameters import lambda_, normalize, option, weight

_PASS = "one pass over memory"
_MEASURED = "one pass over memory; inner products once a study"
_SOUPS = "https://arxiv.org/abs/2203.05482"


def _position() -> Parameter:
    """Where in a sequence an expert stands; checkpoint numbers do as well as 1, 2, 3."""
    doc = "the expert's place in the sequence; the order alone counts, equal places are averaged"
    return Parameter("weight", doc, "float", 1.0, 1.0, 1.0, 64.0, -1e9, 1e9)


def _number(
    name: str, doc: str, default: float, neutral: float, span: Sequence[float], *, log: bool = False, per: Scope
) -> Parameter:
    low, high, minimum, maximum = span
    return Parameter(name, doc, "float", default, neutral, low, high, minimum, maximum, log=log, scope=per)


def _switch(name: str, doc: str, default: bool) -> Parameter:
    """A reading of the method; a search leaves it alone."""
    return Parameter(name, doc, "bool", default, default, scope="study", searched=False, late=True)


def _over(default: str, choices: tuple[str, ...]) -> Parameter:
    return option("over", "what each inner product is taken over", default, choices, stage="combine")


METHODS = (
    Method(
        "linear",
        "weighted average of the experts' weights (model soup)",
        "Σ w_t X_t / Σ w_t",
        "merging.methods.averaging:linear",
        _SOUPS,
        _PASS,
        "`normalize: false` is the plain sum Σ w_t X_t",
        needs_base=False,
        normalised=True,
        weight=weight(minimum=0.0),
        parameters=(normalize(True),),
    ),
    Method(
        "uniform",
        "plain average of the experts: of runs (model soup), of checkpoints, of replicas",
        "Σ X_t / T",
        "merging.methods.averaging:uniform",
        _SOUPS,
        _PASS,
        "summed in float32, not in the checkpoints' dtype as in the soups' code",
        needs_base=False,
        weighting="none",
        aliases=("uniform_soup", "run_soup", "checkpoint_soup"),
    ),
    Method(
        "wise_ft",
        "interpolate between the base and the experts' weighted average",
        "(1 − α) θ₀ + α Σ w_t X_t / Σ w_t",
        "merging.methods.averaging:wise_ft",
        "https://arxiv.org/abs/2109.01903",
        _PASS,
        "α is on the experts' side, as in the paper (papers on alignment tax put it on the base's)",
        normalised=True,
        weight=weight(minimum=0.0),
        parameters=(
            _number("alpha", "share of the experts; 0 is the base", 0.5, 1.0, (0.0, 1.0, 0.0, 1.0), per="group"),
        ),
    ),
    Method(
        "ema",
        "exponential moving average along a sequence of checkpoints",
        "s_1 = X_1, s_k = (1 − rate) s_{k−1} + rate · X_k, the experts in the order of their weights",
        "merging.methods.averaging:ema",
        "https://arxiv.org/abs/2505.12082",
        _PASS,
        "begins with the first checkpoint; `debias: true` begins with 0 and divides by 1 − (1 − rate)^K",
        needs_base=False,
        weighting="order",
        weight=_position(),
        parameters=(
            # Log of 1 − decay is log-odds of the decay but for log(decay), which stays within log 2.
            _number(
                "rate",
                "share of each later checkpoint, 1 − decay",
                0.1,
                1.0,
                (1e-4, 0.5, 0.0, 1.0),
                log=True,
                per="study",
            ),
            _switch("debias", "weigh the first checkpoint like the others instead of beginning with it", False),
        ),
    ),
    Method(
        "task_arithmetic",
        "the base plus a weighted sum of the experts' deltas",
        "θ₀ + λ Σ w_t τ_t",
        "merging.methods.averaging:task_arithmetic",
        "https://arxiv.org/abs/2212.04089",
        _PASS,
        "a negative weight removes a skill (negation); `normalize: true` divides by Σ w_t",
        weight=weight(),
        parameters=(lambda_(0.1, 1.5, searched=False), normalize(False)),
        recommended=True,
    ),
    Method(
        "metagpt",
        "task arithmetic with coefficients in proportion to the deltas' squared norms",
        "θ₀ + λ Σ λ_t τ_t, λ_t = ‖τ_t‖² / Σ_k ‖τ_k‖²",
        "merging.methods.averaging:metagpt",
        "https://arxiv.org/abs/2406.11385",
        _MEASURED,
        "norms over the whole model as in the paper; `over: tensor` gives each tensor its own coefficients",
        needs=("inner products", "model statistics"),
        weighting="none",
        parameters=(lambda_(0.3, 2.0, searched=True), _over("model", ("model", "layer", "tensor"))),
    ),
    Method(
        "lines",
        "the mean delta scaled linearly with depth: shallow layers stay near the base",
        "θ₀ + (α + β · depth) Σ w_t τ_t / Σ w_t, depth from 0 (first layer) to 1 (last)",
        "merging.methods.averaging:lines",
        "https://arxiv.org/abs/2410.17146",
        _PASS,
        "on the weighted mean; `normalize: false` scales the sum Σ w_t τ_t, embeddings count as the first layer and "
        "heads as the last",
        needs=("layer positions",),
        normalised=True,
        weight=weight(minimum=0.0),
        parameters=(
            _number("alpha", "scale at the first layer", 0.5, 1.0, (0.0, 1.5, -10.0, 10.0), per="study"),
            _number("beta", "what the last layer's scale has more", 0.5, 0.0, (0.0, 1.5, -10.0, 10.0), per="study"),
            normalize(True),
        ),
    ),
    Method(
        "model_stock",
        "shrink the experts' mean toward the base by the angle between their deltas",
        "θ₀ + λ t · mean(τ), t = T c / (1 + (T − 1) c), c the mean cosine between two deltas",
        "merging.methods.averaging:model_stock",
        "https://arxiv.org/abs/2403.19522",
        _MEASURED,
        "the mean of cosines, not of angles; a negative c counts as 0 (`clamp: false` extrapolates, as mergekit does); "
        "`over: row` is mergekit's filter_wise, `over: layer` the paper's layer",
        needs=("inner products",),
        experts=(2, 64),
        weighting="none",
        parameters=(
            lambda_(0.5, 1.5, searched=False),
            _over("tensor", ("tensor", "row", "layer")),
            _switch("clamp", "keep t in [0, 1]", True),
        ),
    ),
)
