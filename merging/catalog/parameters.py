"""Hyper-parameters that several methods share, so that one name means one thing. No torch here."""

from merging.catalog.declare import Parameter, Scalar

FLOOR = Parameter(
    "floor",
    "share of the largest singular value up to which a direction is rounding noise; near 1e-2 for LoRAs in bfloat16",
    "float",
    1e-6,
    1e-6,
    1e-6,
    1e-1,
    1e-9,
    0.5,
    log=True,
    scope="study",
    stage="prepare",
    searched=False,
)
"""Of methods that decompose."""


def weight(low: float = 0.0, high: float = 1.0, minimum: float = -10.0, default: float = 1.0) -> Parameter:
    """How much of one expert goes in. A `minimum` below 0 allows negation."""
    return Parameter("weight", "how much of this expert", "float", default, 1.0, low, high, minimum, 10.0)


def lambda_(low: float, high: float, *, searched: bool, default: float = 1.0) -> Parameter:
    """The scale of the joint update."""
    doc = "scale of the joint update" + ("" if searched else " (redundant where weights are searched)")
    return Parameter("lambda", doc, "float", default, 1.0, low, high, -10.0, 10.0, searched=searched)


def density(default: float, low: float, high: float) -> Parameter:
    """The share of a delta that survives."""
    doc = "share of each delta's elements that is kept"
    return Parameter("density", doc, "float", default, 1.0, low, high, 1e-6, 1.0, stage="prepare", per_expert=True)


def share(
    name: str,
    doc: str,
    default: float,
    low: float,
    high: float,
    *,
    neutral: float = 0.0,
    minimum: float = 0.0,
    maximum: float = 1.0,
    searched: bool = True,
    per_expert: bool = False,
) -> Parameter:
    """A prepare-stage number between `minimum` and `maximum`."""
    span = (low, high, minimum, maximum)
    return Parameter(
        name, doc, "float", default, neutral, *span, stage="prepare", searched=searched, per_expert=per_expert
    )


def scope(default: str = "tensor", choices: tuple[str, ...] = ("tensor", "row", "model")) -> Parameter:
    """Among which elements a magnitude is ranked."""
    return option("scope", "among which elements of a delta magnitudes are ranked", default, choices)


def rescale() -> Parameter:
    """How a random selection makes up for what it dropped."""
    doc = "how what is kept makes up for what is dropped: by 1/p (unbiased), to the same L1 norm (mergekit), or not"
    return option("rescale", doc, "inverse", ("inverse", "l1", "none"))


def normalize(default: bool) -> Parameter:
    """Whether the weighted sum is divided by the weights that took part."""
    doc = "divide by the sum of the weights that take part"
    return Parameter("normalize", doc, "bool", default, default, scope="study", searched=False, late=True)


def option(
    name: str, doc: str, default: Scalar, choices: tuple[Scalar, ...], *, stage: str = "prepare", neutral: Scalar = ""
) -> Parameter:
    """A choice that a search leaves alone: it says which reading of a method is meant."""
    return Parameter(
        name,
        doc,
        "choice",
        default,
        neutral or default,
        choices=choices,
        scope="study",
        stage="prepare" if stage == "prepare" else "combine",
        searched=False,
        late=True,
    )
