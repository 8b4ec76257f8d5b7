"""Rows of the methods that read what was measured on documents of a suite."""

from dataclasses import replace

from merging.catalog.declare import Method, Parameter
from merging.catalog.parameters import lambda_, weight

_ONCE = "{} a tensor; what is measured, is measured once for an expert and a suite"


def _measure(name: str, doc: str, default: int, span: tuple[int, int]) -> Parameter:
    """A number that says how much is measured; a search leaves it alone."""
    low, high = span
    return Parameter(
        name, doc, "int", default, default, low, high, 1, 1 << 20, scope="study", stage="measure", searched=False
    )


def _choice(name: str, doc: str, choices: tuple[str, ...], stage: str) -> Parameter:
    return Parameter(
        name,
        doc,
        "choice",
        choices[0],
        choices[0],
        choices=choices,
        scope="study",
        stage="measure" if stage == "measure" else "prepare",
        searched=False,
    )


_DOCUMENTS = _measure("documents", "most documents of each task that are read", 128, (32, 1024))
_TEXTS = _choice(
    "texts",
    "which of these an expert is measured on: those whose answers it explains better than every other expert, or all",
    ("own", "all"),
    "measure",
)
_RIDGE = Parameter(
    "ridge",
    "pull toward the weighted mean, as a share of the mean squared input",
    "float",
    1e-3,
    1e-3,
    1e-6,
    1.0,
    1e-9,
    1e6,
    log=True,
)
_ALPHA = Parameter(
    "alpha",
    "how much of the products between different inputs counts; 0 leaves each input's own square",
    "float",
    0.9,
    1.0,
    0.1,
    1.0,
    0.0,
    1.0,
)
_BLOCK = _measure(
    "block", "inputs wider than this keep products within runs of so many alone; 1: squares alone", 4096, (256, 8192)
)

_REGMEAN = Method(
    "regmean",
    "the matrices whose outputs lie nearest to every expert's on its own inputs, by least squares",
    "θ₀ + λ (Σ w_t τ_t G_t) (Σ w_t G_t)⁻¹, G_t = E[x xᵀ] of expert t's inputs; θ₀ + λ Σ w_t τ_t / Σ w_t elsewhere",
    "merging.methods.regmean:regmean",
    "https://arxiv.org/abs/2212.09849",
    _ONCE.format("one product and one solve [in, in]"),
    "products between inputs times α, with a ridge toward the weighted mean; padding never counts; embeddings, heads, "
    "fused experts, biases and norms take the mean",
    artefacts=("inputs",),
    normalised=True,
    weight=weight(minimum=0.0),
    parameters=(lambda_(0.5, 2.0, searched=True), _ALPHA, _RIDGE, _TEXTS, _DOCUMENTS, _BLOCK),
)

_PLEAS = Method(
    "pleas",
    "the matrices that make the experts' mean outputs of their mean inputs on the same tokens, by least squares",
    "(Σ w_t X_t E[z_t Zᵀ]) E[Z Zᵀ]⁻¹ for matrices and the head, z_t expert t's inputs, Z = Σ w_t z_t; "
    "Σ w_t X_t elsewhere",
    "merging.methods.pleas:pleas",
    "https://arxiv.org/abs/2407.02447",
    _ONCE.format("a product for each pair of experts and one solve [in, in]"),
    "each layer's closed form, where the paper descends a gradient; of models of equal width, brought into one order "
    "first (`mergesearch align`); a ridge toward the weighted mean; heads that are tied take the mean, as do "
    "embeddings, fused experts, biases and norms",
    artefacts=("common inputs",),
    needs_base=False,
    normalised=True,
    weight=weight(minimum=0.0),
    parameters=(_RIDGE, _DOCUMENTS, _BLOCK),
)

METHODS = (
    Method(
        "fisher",
        "average each element by how sure each expert is of it",
        "θ₀ + λ Σ w_t (F_t + ε) τ_t / Σ w_t (F_t + ε), F_t = E[(∂ log p(y|x) / ∂θ)²] of expert t",
        "merging.methods.fisher:fisher",
        "https://arxiv.org/abs/2111.09832",
        _ONCE.format("one pass over deltas and Fisher information"),
        "of each sequence by itself, as the paper defines it (later ports square the gradient of a batch); answers "
        "are drawn from the expert, or with `labels: given` are those of the documents (empirical Fisher); each "
        "expert's F is divided by its norm first, and ε is a multiple of its mean: a large one gives the plain average",
        artefacts=("fisher",),
        normalised=True,
        weight=weight(minimum=0.0),
        parameters=(
            lambda_(0.5, 2.0, searched=True),
            Parameter(
                "floor",
                "added to each expert's Fisher information, as a multiple of its mean",
                "float",
                1e-2,
                1e-2,
                1e-4,
                10.0,
                1e-12,
                1e12,
                log=True,
            ),
            _choice("balance", "what each expert's Fisher is divided by first", ("norm", "mean", "none"), "prepare"),
            _choice(
                "labels", "whose answers are explained: drawn from the expert, or given", ("drawn", "given"), "measure"
            ),
            _TEXTS,
            _DOCUMENTS,
        ),
    ),
    _REGMEAN,
    replace(
        _REGMEAN,
        name="regmean_pp",
        summary="RegMean on the inputs that come out of the merged layers before: a polish of one recipe",
        formula="as regmean, G_t of expert t's layer behind the merged layers before it",
        code="merging.methods.regmean:regmean_pp",
        paper="https://arxiv.org/abs/2508.03121",
        cost="a pass of every expert over the documents, layer by layer, for each candidate: a search with it is slow",
        reading="as regmean; what was measured belongs to one recipe with all its numbers, so a search measures anew "
        "for every trial: meant for a winner's last polish",
        artefacts=("propagated inputs",),
    ),
    _PLEAS,
    replace(
        _PLEAS,
        name="pleas_pp",
        summary="PLeaS on the inputs that come out of the merged layers before: for models of different starts",
        formula="(Σ w_t X_t E[z_t xᵀ]) (Σ w_t E[x xᵀ])⁻¹ for matrices and the head, on expert t's texts, z_t its "
        "own inputs, x those behind the merged layers before; Σ w_t X_t elsewhere",
        code="merging.methods.pleas:pleas_pp",
        cost="passes of every expert over the documents, layer by layer, for each candidate: a search with it is slow",
        reading="the experts' own outputs are wanted, each on its own texts, of what really reaches a matrix, as in "
        "RegMean++ (arXiv:2508.03121), but matrix by matrix within a layer; what was measured belongs to one recipe "
        "with all its numbers: meant for one recipe, or a winner's last polish",
        artefacts=("merged inputs",),
        parameters=(_RIDGE, _TEXTS, _DOCUMENTS, _BLOCK),
    ),
    Method(
        "calibrated",
        "average experts that were made equally confident first, so that none that is too sure of itself dominates",
        "Σ w_t X_t / Σ w_t; in the final norm w_t / T_t for w_t, T_t the temperature at which expert t is as sure as "
        "it is right",
        "merging.methods.calibrated:calibrated",
        "https://arxiv.org/abs/2309.17230",
        _ONCE.format("one pass over memory"),
        "balances trained experts, where the paper (BANG) balances while it trains; logits are divided by T_t through "
        "the final norm, and the merge's are multiplied by the weighted harmonic mean of the T_t, so that coefficients "
        "sum to 1; models whose final norm does not scale their logits (soft caps, a bias at the head) are refused",
        artefacts=("temperature",),
        needs_base=False,
        normalised=True,
        weight=weight(minimum=0.0),
        parameters=(
            Parameter(
                "restore", "give the merge the mean temperature back", "bool", True, True, scope="study", searched=False
            ),
            _choice(
                "texts",
                "which documents a temperature is fitted on: all, or those whose answers the expert explains better "
                "than every other expert",
                ("all", "own"),
                "measure",
            ),
            _DOCUMENTS,
        ),
    ),
    Method(
        "lm_cocktail",
        "average experts by how well each of them answers a few documents already",
        "Σ w_t e^(−ℓ_t/T) X_t / Σ w_t e^(−ℓ_t/T), ℓ_t expert t's mean loss in nats a token of the right answers",
        "merging.methods.cocktail:cocktail",
        "https://arxiv.org/abs/2311.13534",
        _ONCE.format("one pass over memory"),
        "of the experts alone: the paper also counts the base, or the one fine-tuned model, as such; every document "
        "counts the same; weights multiply what the losses say, and 1 for all is the closed form",
        artefacts=("loss",),
        needs_base=False,
        normalised=True,
        weight=weight(minimum=0.0),
        parameters=(
            Parameter(
                "temperature",
                "how little losses count: toward 0 the best expert takes all, at large values the mean is left",
                "float",
                5.0,
                5.0,
                0.02,
                20.0,
                1e-6,
                1e6,
                log=True,
            ),
            _measure("documents", "most documents of each task that are read", 32, (8, 256)),
        ),
    ),
)
