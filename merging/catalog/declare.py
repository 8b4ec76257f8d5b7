"""What a row of the catalog says: the records `Method` and `Parameter`. No torch here."""

from dataclasses import dataclass
from typing import Literal

from merging.errors import InvalidRecipe

Scalar = bool | int | float | str
Scope = Literal["study", "group"]
Weighting = Literal["per_expert", "one_hot", "order", "none"]
# What a method reads beside the tensor at hand. Each is made once a study and kept for all of its trials.
Need = Literal[
    "inner products", "magnitudes", "ranks", "masks", "decompositions", "model statistics", "layer positions"
]


# What was measured of the models on documents of a suite (`merging.artefacts`).
ArtefactKind = Literal[
    "fisher",
    "inputs",
    "propagated inputs",
    "common inputs",
    "merged inputs",
    "likelihoods",
    "coefficients",
    "masks",
    "temperature",
    "loss",
]


@dataclass(frozen=True)
class Parameter:
    """One hyper-parameter of a method.

    Attributes:
        default: its value when a recipe or a study says nothing.
        low, high: the range that a search explores unless the study's `bounds` say otherwise.
        minimum, maximum: the values that make sense at all; anything else is refused.
        neutral: the value at which the parameter does nothing (what makes one expert alone come back).
        scope: whether a search gives it one value a study or one a group.
        stage: `measure` if a change asks for other artefacts, `prepare` if it invalidates the prepared state, else
            `combine`.
        searched: False for a parameter that a search leaves alone unless the study asks for it (`space.bounds`,
            `space.fixed`): other parameters make it redundant, or it chooses between readings of a paper.
        per_expert: whether a recipe may give it a value for each expert; a search gives all of them one.
        late: added after recipes of the method had been written: their digests do not know it.
    """

    name: str
    doc: str
    kind: Literal["float", "int", "bool", "choice"]
    default: Scalar
    neutral: Scalar
    low: float = 0.0
    high: float = 1.0
    minimum: float = float("-inf")
    maximum: float = float("inf")
    log: bool = False
    choices: tuple[Scalar, ...] = ()
    scope: Scope = "group"
    stage: Literal["measure", "prepare", "combine"] = "combine"
    searched: bool = True
    per_expert: bool = False
    late: bool = False

    def check(self, value: Scalar, key: str) -> Scalar:
        """The value in the parameter's own type.

        Raises:
            InvalidRecipe: not of the parameter's kind, or outside what makes sense.
        """
        if self.kind == "bool" or self.kind == "choice":
            allowed: tuple[Scalar, ...] = (False, True) if self.kind == "bool" else self.choices
            if not any(value == a and type(value) is type(a) for a in allowed):
                raise InvalidRecipe(key, value, "is not a choice", f"use one of {list(allowed)}")
            return value
        if isinstance(value, bool | str) or (self.kind == "int" and not float(value).is_integer()):
            raise InvalidRecipe(key, value, f"is not of type {self.kind}", f"use a number, e.g. {self.default}")
        if not self.minimum <= value <= self.maximum:
            raise InvalidRecipe(key, value, "is out of range", f"use a value in [{self.minimum:g}, {self.maximum:g}]")
        return int(value) if self.kind == "int" else float(value)


@dataclass(frozen=True)
class Method:
    """One merge method.

    Attributes:
        summary: what it does, a clause without a full stop.
        formula: what it computes, with θ₀ the base, τ_t = X_t − θ₀ the deltas, w_t the weights.
        code: `module:object` of one of the contract's three shapes (`merging/methods/contract.py`).
        paper: where it comes from, a URL.
        cost: what one candidate costs, and what is paid once a study.
        reading: which of the published readings this is, where papers and codes disagree; empty where they agree.
        needs: what it reads beside the tensor at hand.
        artefacts: what must have been measured of every expert on documents of the suite.
        weighting: `per_expert` — one weight an expert; `one_hot` — a search chooses one expert a group;
            `order` — a weight is the expert's position in a sequence, given by the order of the study's experts
            and never searched; `none` — the method takes no weights.
        normalised: weights matter only relatively; they must be non-negative and not all zero.
        weight: range of one expert's weight.
        experts: how many experts it takes, inclusive.
        needs_base: whether the base takes part.
        aliases: other names that recipes and studies may use for it.
        recommended: part of the set that a study searches when it names no methods.
    """

    name: str
    summary: str
    formula: str
    code: str
    paper: str
    cost: str
    reading: str = ""
    needs: tuple[Need, ...] = ()
    artefacts: tuple[ArtefactKind, ...] = ()
    experts: tuple[int, int] = (1, 64)
    needs_base: bool = True
    weighting: Weighting = "per_expert"
    normalised: bool = False
    weight: Parameter | None = None
    parameters: tuple[Parameter, ...] = ()
    aliases: tuple[str, ...] = ()
    recommended: bool = False

    def parameter(self, name: str) -> Parameter | None:
        """The declared parameter of that name (`weight` included), or None."""
        known = {p.name: p for p in self.parameters} | ({"weight": self.weight} if self.weight else {})
        return known.get(name)
