"""Every merge method, declared once: what it is, its hyper-parameters with ranges, what it needs, its paper.

Validation, the search space, `mergesearch methods`, the documentation and the engine all read these rows.
This file imports no torch; a row names its code as `module:object`, loaded on first use by `implementation`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal

from merging.errors import InvalidRecipe

Scalar = bool | int | float | str
Scope = Literal["study", "group"]
Weighting = Literal["per_expert", "one_hot", "none"]


@dataclass(frozen=True)
class Parameter:
    """One hyper-parameter of a method.

    Attributes:
        default: its value when a recipe or a study says nothing.
        low, high: the range that a search explores unless the study's `bounds` say otherwise.
        minimum, maximum: the values that make sense at all; anything else is refused.
        neutral: the value at which the parameter does nothing (what makes one expert alone come back).
        scope: whether a search gives it one value a study or one a group.
        stage: `prepare` if a change invalidates the prepared state, else `combine`.
        searched: False for a parameter that other parameters make redundant; `bounds` turn it on.
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
    stage: Literal["prepare", "combine"] = "combine"
    searched: bool = True

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
        code: `module:object` of a LinearMethod or DeltaMethod (`merging/methods/contract.py`).
        weighting: `per_expert` — one weight an expert; `one_hot` — a search chooses one expert a group;
            `none` — the method takes no weights.
        normalised: weights matter only relatively; they must be non-negative and not all zero.
        weight: range of one expert's weight.
        experts: how many experts it takes, inclusive.
        needs_base: whether the base takes part.
        recommended: part of the set that a study searches when it names no methods.
    """

    name: str
    summary: str
    code: str
    paper: str
    experts: tuple[int, int] = (1, 64)
    needs_base: bool = True
    weighting: Weighting = "per_expert"
    normalised: bool = False
    weight: Parameter | None = None
    parameters: tuple[Parameter, ...] = ()
    recommended: bool = False

    def parameter(self, name: str) -> Parameter | None:
        """The declared parameter of that name (`weight` included), or None."""
        known = {p.name: p for p in self.parameters} | ({"weight": self.weight} if self.weight else {})
        return known.get(name)


def _weight(low: float = 0.0, high: float = 1.0, minimum: float = -10.0, default: float = 1.0) -> Parameter:
    return Parameter("weight", "how much of this expert", "float", default, 1.0, low, high, minimum, 10.0)


def _lambda(low: float, high: float, *, searched: bool) -> Parameter:
    doc = "scale of the joint update" + ("" if searched else " (redundant where weights are searched)")
    return Parameter("lambda", doc, "float", 1.0, 1.0, low, high, -10.0, 10.0, searched=searched)


def _density(default: float, low: float, high: float) -> Parameter:
    doc = "share of each delta's elements that is kept"
    return Parameter("density", doc, "float", default, 1.0, low, high, 1e-6, 1.0, stage="prepare")


_METHODS = (
    Method(
        "linear",
        "weighted average of the experts' weights (model soup)",
        "merging.methods.averaging:linear",
        "https://arxiv.org/abs/2203.05482",
        needs_base=False,
        normalised=True,
        weight=_weight(minimum=0.0),
    ),
    Method(
        "task_arithmetic",
        "the base plus a weighted sum of the experts' deltas",
        "merging.methods.averaging:task_arithmetic",
        "https://arxiv.org/abs/2212.04089",
        weight=_weight(),
        parameters=(_lambda(0.1, 1.5, searched=False),),
        recommended=True,
    ),
    Method(
        "ties",
        "trim small deltas, elect a sign per element, average the experts that agree",
        "merging.methods.sparse:ties",
        "https://arxiv.org/abs/2306.01708",
        normalised=True,
        weight=_weight(minimum=0.0),
        parameters=(_lambda(0.3, 2.0, searched=True), _density(0.3, 0.05, 1.0)),
        recommended=True,
    ),
    Method(
        "dare",
        "drop delta elements at random, rescale the rest by 1/density, sum",
        "merging.methods.sparse:dare",
        "https://arxiv.org/abs/2311.03099",
        weight=_weight(),
        parameters=(_lambda(0.1, 1.5, searched=False), _density(0.5, 0.1, 1.0)),
    ),
    Method(
        "dare_ties",
        "DARE's random drop, then TIES' sign election (signed sum of those that agree)",
        "merging.methods.sparse:dare_ties",
        "https://arxiv.org/abs/2311.03099",
        weight=_weight(minimum=0.0),
        parameters=(_lambda(0.1, 1.5, searched=False), _density(0.5, 0.1, 1.0)),
        recommended=True,
    ),
    Method(
        "breadcrumbs",
        "drop each delta's largest outliers and its small noise, sum the middle",
        "merging.methods.sparse:breadcrumbs",
        "https://arxiv.org/abs/2312.06795",
        weight=_weight(),
        parameters=(
            _lambda(0.1, 1.5, searched=False),
            _density(0.9, 0.05, 1.0),
            Parameter(
                "gamma",
                "share of the largest elements that is dropped",
                "float",
                0.01,
                0.0,
                0.0,
                0.05,
                0.0,
                0.99,
                stage="prepare",
            ),
        ),
    ),
    Method(
        "slerp",
        "spherical interpolation between two experts; t = w_2 / (w_1 + w_2)",
        "merging.methods.spherical:slerp",
        "https://doi.org/10.1145/325165.325242",
        experts=(1, 2),
        needs_base=False,
        normalised=True,
        weight=_weight(minimum=0.0),
    ),
    Method(
        "model_stock",
        "shrink the experts' mean toward the base by the angle between their deltas",
        "merging.methods.averaging:model_stock",
        "https://arxiv.org/abs/2403.19522",
        experts=(2, 64),
        weighting="none",
        parameters=(_lambda(0.5, 1.5, searched=False),),
    ),
    Method(
        "layer_swap",
        "each group of layers is taken whole from one expert",
        "merging.methods.averaging:layer_swap",
        "https://arxiv.org/abs/2410.01335",
        needs_base=False,
        weighting="one_hot",
        normalised=True,
        weight=_weight(minimum=0.0),
    ),
)

CATALOG: Mapping[str, Method] = {m.name: m for m in _METHODS}


def method(name: str, key: str = "method") -> Method:
    """The catalog's row.

    Raises:
        InvalidRecipe: there is no such method.
    """
    if name not in CATALOG:
        raise InvalidRecipe(key, name, "is not a merge method", f"use one of {', '.join(CATALOG)}")
    return CATALOG[name]


def recommended() -> tuple[str, ...]:
    """The methods a study searches when it names none."""
    return tuple(m.name for m in CATALOG.values() if m.recommended)


def implementation(row: Method) -> Any:
    """The method's code (imports torch): a LinearMethod or a DeltaMethod."""
    module, _, name = row.code.partition(":")
    return getattr(import_module(module), name)
