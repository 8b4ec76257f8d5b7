"""Rows of the methods that learn coefficients or masks on documents of a suite, by gradients."""

from collections.abc import Sequence

from merging.catalog.declare import Method, Parameter
from merging.catalog.parameters import lambda_, weight

_ONCE = "one pass over memory; learned once for these models and a suite: {}"
_PASSES = "`steps` forward and backward passes over a batch, and a forward pass over all documents every tenth step"
_RELATIVE = "λ Σ w_t c_t τ_t · Σ|c| / Σ w|c| around θ₀"


def _count(name: str, doc: str, default: int, span: tuple[int, int], least: int = 1) -> Parameter:
    """A number that says how much is learned, and on what; a search leaves it alone."""
    low, high = span
    return Parameter(
        name, doc, "int", default, default, low, high, least, 1 << 20, scope="study", stage="measure", searched=False
    )


def _number(
    name: str, doc: str, default: float, neutral: float, span: Sequence[float], *, log: bool = False
) -> Parameter:
    low, high, minimum, maximum = span
    edges = (low, high, minimum, maximum)
    return Parameter(
        name, doc, "float", default, neutral, *edges, log=log, scope="study", stage="measure", searched=False
    )


def _choice(name: str, doc: str, choices: tuple[str, ...]) -> Parameter:
    first = choices[0]
    return Parameter(name, doc, "choice", first, first, choices=choices, scope="study", stage="measure", searched=False)


def _learning(steps: int, rate: float) -> tuple[Parameter, ...]:
    """How long, how fast, and on what."""
    return (
        _count("steps", "steps of Adam", steps, (20, 500)),
        _number("rate", "Adam's first learning rate; it falls to 0", rate, rate, (1e-3, 1.0, 1e-9, 10.0), log=True),
        _count("batch", "documents of one step", 32, (8, 256)),
        _count("documents", "most documents of each task that are read", 128, (32, 1024)),
    )


def _granularity(default: str) -> Parameter:
    doc = "what has coefficients of its own: each tensor, attention and mlp of each layer, each layer, or the model"
    choices = ("tensor", "module", "layer", "model")
    return Parameter(
        "granularity",
        doc,
        "choice",
        default,
        default,
        choices=choices,
        scope="study",
        stage="measure",
        searched=False,
    )


_MASKS = (
    _number("share", "share of the delta's elements that a mask keeps", 0.3, 1.0, (1e-3, 0.5, 1e-6, 1.0), log=True),
    _number("l1", "the penalty's weight: times the mean of the masks", 1.0, 0.0, (0.01, 10.0, 0.0, 1e6), log=True),
    _choice(
        "texts",
        "what a mask is trained on: the documents whose answers the expert explains better than every other, or all",
        ("own", "all"),
    ),
    *_learning(100, 0.1),
)
_MASKED = (
    "logits of the elements that moved furthest, four times as many as are kept; the penalty lowers every logit (in "
    "the reference code it drives them apart), and the highest are kept"
)

METHODS = (
    Method(
        "learned_soup",
        "coefficients under which the right answers are likeliest, learned by gradients",
        f"{_RELATIVE}, c the minimum of −log p(answer) per token on documents",
        "merging.methods.learned:learned_sum",
        "https://arxiv.org/abs/2203.05482",
        _ONCE.format(_PASSES),
        "`form: softmax` makes coefficients shares of one whole as in the paper, `free` any numbers",
        artefacts=("coefficients",),
        normalised=True,
        weight=weight(minimum=0.0),
        parameters=(
            lambda_(0.5, 2.0, searched=True),
            _granularity("tensor"),
            _choice("form", "whether coefficients are shares of one whole, or any numbers", ("free", "softmax")),
            *_learning(100, 0.05),
        ),
    ),
    Method(
        "adamerging",
        "coefficients under which the model is surest of what it says; no right answers are looked at",
        f"{_RELATIVE}, c ≥ 0 the minimum of the mean entropy of p(first token of an answer)",
        "merging.methods.learned:learned_sum",
        "https://arxiv.org/abs/2310.02575",
        _ONCE.format(_PASSES),
        "of the first token after each prompt; coefficients have no upper end",
        artefacts=("coefficients",),
        normalised=True,
        weight=weight(minimum=0.0),
        parameters=(
            lambda_(0.5, 2.0, searched=True),
            _granularity("layer"),
            _number("start", "every coefficient before the first step", 0.3, 1.0, (0.1, 1.0, 0.0, 10.0)),
            *_learning(100, 0.01),
        ),
    ),
    Method(
        "adaptive_averaging",
        "keep a share of the base that differs by depth, its mean given: less is forgotten for the same gain",
        "α_k θ₀ + (1 − α_k) Σ w_t X_t / Σ w_t, α_k = α₀ (σ(a_k) + ε) / mean_j (σ(a_j) + ε), a learned",
        "merging.methods.learned:adaptive_averaging",
        "https://arxiv.org/abs/2309.06256",
        _ONCE.format(_PASSES),
        "all tensors of a block, embeddings with the first and heads with the last; the paper's code merges linear "
        "layers alone. A sweep of α₀ gives the front between what is learned and what is kept",
        artefacts=("coefficients",),
        normalised=True,
        weight=weight(minimum=0.0),
        parameters=(
            _number("alpha0", "mean share of the base over the blocks", 0.2, 0.0, (0.0, 0.8, 0.0, 1.0)),
            _number("epsilon", "keeps the shares near each other", 0.2, 0.2, (0.05, 1.0, 1e-6, 1e6), log=True),
            _count("blocks", "runs of layers that have a share each", 3, (2, 64)),
            *_learning(100, 0.1),
        ),
    ),
    Method(
        "graft_trained",
        "import the few elements under which one expert's answers are likeliest",
        "θ₀ + λ m ⊙ τ, m the trained mask of a `share` of the model",
        "merging.methods.learned:trained_masks",
        "https://arxiv.org/abs/2302.06600",
        _ONCE.format(_PASSES),
        _MASKED,
        artefacts=("masks",),
        experts=(1, 1),
        weighting="none",
        parameters=(lambda_(0.5, 1.5, searched=True), *_MASKS),
    ),
    Method(
        "localize_and_stitch_trained",
        "train the mask of each expert on its own documents, average where masks overlap",
        "θ₀ + λ Σ w_t m_t ⊙ τ_t / Σ w_t m_t, m_t the trained mask of a `share` of the model",
        "merging.methods.learned:trained_masks",
        "https://arxiv.org/abs/2408.13656",
        _ONCE.format(f"for each expert {_PASSES}"),
        _MASKED,
        artefacts=("masks",),
        normalised=True,
        weight=weight(minimum=0.0),
        parameters=(lambda_(0.5, 1.5, searched=True), *_MASKS),
    ),
)
