"""Rows of the methods that weigh the elements of several deltas against each other."""

from merging.catalog.declare import Method, Parameter
from merging.catalog.parameters import lambda_, option, share, weight

_RAM = "https://arxiv.org/abs/2601.13572"
_CHANGED = (
    "ε is absolute, as in the authors' code: in bfloat16 every change of a weight above 0.002 exceeds 1e-5, so ε "
    "matters where experts were trained and stored in float32"
)
_SCALED = "a weight scales its delta beforehand, v_t = w_t τ_t; weights of 1 are the paper"
_EPSILON = Parameter(
    "epsilon",
    "an element is changed where |τ| exceeds this (absolute)",
    "float",
    1e-5,
    0.0,
    1e-7,
    1e-4,
    0.0,
    1.0,
    log=True,
)


def _number(
    name: str,
    doc: str,
    default: float,
    span: tuple[float, float],
    limits: tuple[float, float],
    neutral: float,
    *,
    searched: bool,
) -> Parameter:
    """A combine-stage number: searched over `span`, refused outside `limits`."""
    return Parameter(name, doc, "float", default, neutral, *span, *limits, searched=searched)


METHODS = (
    Method(
        "sce",
        "merge where the experts differ most, weigh them by their energy there, erase minority signs",
        "θ₀ + λ Σ_A e_t τ̂_t / Σ_A e_t, τ̂ = m ⊙ τ, m the `select` share of the elements with a variance over the "
        "experts that vary most, e_t = Σ τ̂_t² / Σ_j Σ τ̂_j², A the experts whose τ̂_t has the sign of Σ_j τ̂_j",
        "merging.methods.sce:sce",
        "https://arxiv.org/abs/2408.07990",
        "one pass over memory; a selection by variance once for each new `select`",
        "the merged deltas are masked (paper, mergekit); `mask_output: false` is the authors' code, which masks only "
        "to find the weights; `uniform_below: 1e-6` is mergekit's; at least one element that varies is selected; one "
        "expert alone does not vary: with select < 1 it gives the base",
        weighting="none",
        parameters=(
            lambda_(0.5, 1.5, searched=True),
            share("select", "share of the varying elements that is selected", 0.1, 0.05, 1.0, neutral=1.0),
            Parameter(
                "mask_output",
                "merge the selected elements alone; if not, the selection only decides the weights",
                "bool",
                True,
                True,
                scope="study",
                searched=False,
            ),
            Parameter(
                "uniform_below",
                "weights are equal where the experts' mean squares sum to less",
                "float",
                0.0,
                0.0,
                0.0,
                1e-5,
                0.0,
                1.0,
                scope="study",
                searched=False,
            ),
        ),
    ),
    Method(
        "ram",
        "keep what one expert alone changed at full strength, average what several changed",
        "θ₀ + λ Σ_C w_t τ_t / Σ_C w_t, C the experts with |τ_t| > ε",
        "merging.methods.ram:ram",
        _RAM,
        "one pass over memory",
        f"for sparse deltas of reinforcement learning, else the average; {_CHANGED}; equal weights are the paper",
        normalised=True,
        weight=weight(minimum=0.0),
        parameters=(lambda_(0.5, 1.5, searched=True), _EPSILON),
    ),
    Method(
        "ram_plus",
        "RAM, and what one expert alone changed grows with the share of its changes that is averaged",
        "as ram; elements of one expert alone times 1 + r · min(ρ_t, α), ρ_t = shared_t / unique_t, the numbers of "
        "elements that expert t changed with others and alone",
        "merging.methods.ram:ram_plus",
        _RAM,
        "two passes over memory",
        "ρ within the tensor (mergekit's ramplus_tl); the authors' code counts over the model, with α = 1 and our "
        f"1 + r for its r; {_CHANGED}; equal weights are the paper",
        normalised=True,
        weight=weight(minimum=0.0),
        parameters=(
            lambda_(0.5, 1.5, searched=True),
            _EPSILON,
            _number(
                "r", "how much shared changes strengthen the others", 0.1, (0.0, 0.5), (0.0, 10.0), 0.0, searched=True
            ),
            _number("alpha", "the largest ratio that counts", 0.2, (0.1, 1.0), (0.0, 10.0), 0.2, searched=False),
        ),
        aliases=("ramplus_tl",),
    ),
    Method(
        "magmax",
        "every element from the expert that moved it furthest",
        "θ₀ + λ v_s, s = argmax_t |v_t|, v_t = w_t τ_t, element by element",
        "merging.methods.masking:magmax",
        "https://arxiv.org/abs/2407.06322",
        "one pass over memory",
        f"{_SCALED}; of opposite equals the positive one",
        weight=weight(),
        parameters=(lambda_(0.1, 1.5, searched=False),),
    ),
    Method(
        "emr",
        "the largest of those that agree with the elected sign (EMR's unified vector)",
        "θ₀ + λ s · max_{t: sign v_t = s} |v_t|, s = sign Σ v_t, v_t = w_t τ_t, element by element",
        "merging.methods.masking:emr",
        "https://arxiv.org/abs/2405.17461",
        "one pass over memory",
        f"the unified model alone, without the masks and scales that make it an expert again; {_SCALED}; a tied vote "
        "elects + (the authors' code: −)",
        weight=weight(),
        parameters=(lambda_(0.1, 1.5, searched=False),),
    ),
    Method(
        "consensus",
        "task arithmetic on the elements that several experts use (TALL masks)",
        "θ₀ + λ v ⊙ [Σ_t M_t ≥ k], v = Σ v_t, M_t = |v_t| > λ_m |v − v_t|, v_t = w_t τ_t",
        "merging.methods.masking:consensus",
        "https://arxiv.org/abs/2405.07813",
        "one pass over memory",
        f"one λ_m for all experts (the authors choose one each by validation); {_SCALED}; k counts at most the experts "
        "that take part, where the authors' code gives the base; k = 0 is task arithmetic",
        weight=weight(),
        parameters=(
            lambda_(0.1, 1.5, searched=False),
            _number(
                "lambda_m",
                "how much an expert must outweigh the others",
                0.4,
                (0.2, 0.6),
                (0.0, 10.0),
                1.0,
                searched=True,
            ),
            Parameter("k", "how many experts must use an element", "int", 2, 0, 1, 4, 0, 64),
        ),
    ),
    Method(
        "pcb",
        "elements weighed by their size within the expert and their agreement between experts",
        "θ₀ + λ Σ w_t s_t ⊙ τᶜ_t / Σ s_t, s_t = N(β_t) of the `ratio` largest, else 0, β_t = exp(T a_t²) ⊙ "
        "Σ_j tanh(z_t ⊙ z_j), z_t = sign(τ_t) ⊙ a_t, a_t = N(|τᶜ_t|), N to [0, 1], τᶜ with |τ| clipped at both ends",
        "merging.methods.pcb:pcb",
        "https://arxiv.org/abs/2410.02396",
        "one pass over the kept elements; T² products an element once for each new `ratio`",
        "the authors' pcb_ES.py (the paper has softmax for exp, other files of theirs other normalisations), within "
        "tensors instead of the model; ⌊clip · n⌋ elements are clipped at either end; a delta without a range has "
        "a = 1; weights scale only, as there: an expert of weight 0 still competes",
        weight=weight(0.5, 1.5),
        parameters=(
            lambda_(0.8, 2.2, searched=False, default=1.2),
            share("ratio", "share of each expert's elements that is kept", 0.1, 0.01, 0.4, neutral=1.0, minimum=1e-6),
            share("clip", "share of magnitudes clipped at either end", 0.01, 0.0, 0.05, maximum=0.5, searched=False),
        ),
    ),
    Method(
        "cabs",
        "experts pruned one after another, block by block, each in what those before it left",
        "θ₀ + λ Σ w_t m_t ⊙ τ_t, m_t the `density` share of each block of `m` elements that is largest among those "
        "that no expert before t keeps",
        "merging.methods.cabs:cabs",
        "https://arxiv.org/abs/2503.01874",
        "four passes over the deltas; ranks within blocks once a study",
        "n:m pruning with n = density · m, for any number of experts; where the free elements of a block are too few "
        "the largest of the others make up n (the authors' code for two: m / 2 of them); the last block may be short "
        "(the authors': dropped, or an error)",
        needs=("ranks",),
        weight=weight(),
        parameters=(
            lambda_(0.1, 1.5, searched=False),
            Parameter("density", "share of each block that an expert keeps", "float", 0.25, 1.0, 0.05, 0.75, 1e-6, 1.0),
            option("m", "elements of a block", 256, (32, 64, 128, 256, 512)),
            option(
                "order",
                "which weight chooses first; of equal ones the experts' fingerprints decide",
                "heaviest",
                ("heaviest", "lightest"),
                stage="combine",
            ),
        ),
    ),
    Method(
        "sparse_soup",
        "weighted average of pruned experts that stays as sparse as they are",
        "m ⊙ Σ w_t X_t / Σ w_t, m the mask of the elements that are not 0",
        "merging.methods.sparse_soup:sparse_soup",
        "https://arxiv.org/abs/2306.16788",
        "one pass over the deltas; the masks are compared once a study",
        "experts with other zeros are refused (the authors' code takes the last one's mask unseen); `intersection` "
        "keeps what none, `union` what not all have pruned; experts of weight 0 count",
        needs_base=False,
        normalised=True,
        weight=weight(minimum=0.0),
        parameters=(
            option(
                "mask",
                "whose zeros stay: the same in all experts (else refused), those of any, or those of all",
                "shared",
                ("shared", "intersection", "union"),
            ),
        ),
    ),
)
