"""mergekit's methods and their parameters beside ours: one row a method. No torch here.

Facts from mergekit 0.1.5, whose quirks are named options of our methods: a row says which options mean mergekit's.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from merging.catalog import Scalar
from merging.errors import InvalidRecipe

_MANY = 64


@dataclass(frozen=True)
class Knob:
    """One parameter of a mergekit method.

    Attributes:
        name: mergekit's.
        kind: its type there.
        default: its value when nothing is said; None: it must be given.
        per_model: whether each model has its own.
        ours: the parameter of our method that it is; empty: it changes no result, or is read by itself.
        values: what its values are called here, where they are called otherwise.
        only: the one value that our method can do; None: any.
    """

    name: str
    kind: Literal["bool", "int", "float"]
    default: Scalar | None = None
    per_model: bool = False
    ours: str = ""
    values: Mapping[Scalar, Scalar] = field(default_factory=dict)
    only: Scalar | None = None


@dataclass(frozen=True)
class Joint:
    """Several parameters of a mergekit method that are one of ours.

    Attributes:
        ours: the parameter of our method.
        knobs: theirs, by name.
        values: ours for each combination of theirs; the first that gives a value is how that value is written.
    """

    ours: str
    knobs: tuple[str, ...]
    values: Mapping[tuple[Scalar, ...], Scalar]


@dataclass(frozen=True)
class Foreign:
    """One mergekit method.

    Attributes:
        name: mergekit's.
        ours: our method's.
        base: whether `base_model` is the origin of deltas (`required`; `optional`: if it is given), one of two ends
            (`end`), or an ordinary input (`input`).
        inputs: how many models it takes beside the origin of deltas, fewest and most.
        knobs: its parameters; `int8_mask`, which changes no result, is taken by all.
        weights: where our weights come from: each model's `weight`, the place `t` between two, or `equal`.
        fixed: values of our parameters that are mergekit's way, beside what the knobs say.
        joint: parameters that make one of ours together.
        elected: whether an expert that keeps nothing is the same as one of weight 0, whatever is normalised.
    """

    name: str
    ours: str
    base: Literal["required", "optional", "end", "input"]
    inputs: tuple[int, int]
    knobs: tuple[Knob, ...] = ()
    weights: Literal["weight", "t", "equal"] = "equal"
    fixed: Mapping[str, Scalar] = field(default_factory=dict)
    joint: Joint | None = None
    elected: bool = False


def _delta(
    name: str, ours: str, *, keeps: str = "", normalize: bool = False, rescale: bool = False, elected: bool = False
) -> Foreign:
    """A method of mergekit's one class for task vectors: what is kept (`keeps`) and how it is joined."""
    fixed: dict[str, Scalar] = {}
    knobs = [
        Knob("weight", "float", per_model=True),
        Knob("lambda", "float", 1.0, ours="lambda"),
        Knob("normalize", "bool", normalize, ours="normalize"),
    ]
    if keeps in ("random", "ranks"):
        knobs.append(Knob("rescale", "bool", rescale, ours="rescale", values={True: "l1", False: "none"}))
    else:  # rescaling what magnitudes select is possible there, and nobody's default
        knobs.append(Knob("rescale", "bool", rescale, only=False if keeps else None))
    knobs.append(Knob("density", "float", 1.0, per_model=True, ours="density" if keeps else ""))
    if keeps == "middle":
        knobs.append(Knob("gamma", "float", 0.01, per_model=True, ours="gamma"))
    if keeps == "ranks":
        knobs.append(Knob("epsilon", "float", 0.15, per_model=True, ours="epsilon"))
    if keeps in ("largest", "middle"):
        fixed["scope"] = "tensor"
    if keeps == "ranks":
        fixed["scope"] = "row"
    return Foreign(name, ours, "required", (1, _MANY), tuple(knobs), "weight", fixed, elected=elected)


_WEIGHT = Knob("weight", "float", per_model=True)
_SOUP = (_WEIGHT, Knob("normalize", "bool", True, ours="normalize"))

_CHANGED = Knob("epsilon", "float", 1e-5, ours="epsilon")
_OVER = Joint(
    "over",
    ("nuslerp_flatten", "nuslerp_row_wise"),
    {(True, False): "tensor", (True, True): "tensor", (False, False): "row", (False, True): "column"},
)

_FOREIGN = (
    Foreign("linear", "linear", "input", (1, _MANY), _SOUP, "weight"),
    _delta("task_arithmetic", "task_arithmetic"),
    _delta("ties", "ties", keeps="largest", normalize=True, elected=True),
    _delta("dare_ties", "dare_ties", keeps="random", rescale=True, elected=True),
    _delta("dare_linear", "dare", keeps="random", rescale=True),
    _delta("breadcrumbs", "breadcrumbs", keeps="middle"),
    _delta("breadcrumbs_ties", "breadcrumbs_ties", keeps="middle", elected=True),
    _delta("della", "della", keeps="ranks", normalize=True, rescale=True, elected=True),
    _delta("della_linear", "della_linear", keeps="ranks", rescale=True),
    Foreign("slerp", "slerp", "end", (2, 2), (Knob("t", "float"),), "t", {"origin": "zero", "over": "tensor"}),
    Foreign("passthrough", "layer_swap", "input", (1, 1), (Knob("scale", "float", 1.0, per_model=True, ours="scale"),)),
    Foreign(
        "nuslerp",
        "nuslerp",
        "optional",
        (2, 2),
        (_WEIGHT, Knob("nuslerp_flatten", "bool", True), Knob("nuslerp_row_wise", "bool", False)),
        "weight",
        joint=_OVER,
    ),
    Foreign(
        "multislerp",
        "nlerp",
        "optional",
        (1, _MANY),
        (_WEIGHT, Knob("normalize_weights", "bool", True, only=True), Knob("eps", "float", 1e-8, only=1e-8)),
        "weight",
        {"over": "tensor"},
    ),
    Foreign(
        "karcher",
        "karcher",
        "input",
        (1, _MANY),
        (Knob("max_iter", "int", 10, ours="iterations"), Knob("tol", "float", 1e-5, ours="tol")),
        fixed={"origin": "zero", "over": "tensor"},
    ),
    Foreign(
        "model_stock",
        "model_stock",
        "required",
        (2, _MANY),
        (Knob("filter_wise", "bool", False, ours="over", values={False: "tensor", True: "row"}),),
        fixed={"clamp": False},
    ),
    Foreign(
        "sce",
        "sce",
        "required",
        (1, _MANY),
        (Knob("select_topk", "float", 1.0, ours="select"),),
        fixed={"uniform_below": 1e-6},
    ),
    Foreign("nearswap", "nearswap", "required", (1, 1), (Knob("t", "float", ours="t"),)),
    Foreign("arcee_fusion", "arcee_fusion", "required", (1, 1), fixed={"c": 1.5}),
    Foreign("ram", "ram", "required", (1, _MANY), (_CHANGED,)),
    Foreign(
        "ramplus_tl",
        "ram_plus",
        "required",
        (1, _MANY),
        (_CHANGED, Knob("r", "float", 0.1, ours="r"), Knob("alpha", "float", 0.2, ours="alpha")),
    ),
)

METHODS: Mapping[str, Foreign] = {row.name: row for row in _FOREIGN}
IGNORED = "int8_mask"  # the type of a mask: memory, never the result


def foreign(name: str) -> Foreign:
    """The row of a mergekit method.

    Raises:
        InvalidRecipe: mergekit has no such method, or it has no counterpart here.
    """
    if name not in METHODS:
        raise InvalidRecipe(
            "merge_method", name, "is not a method read from mergekit", f"use one of {', '.join(METHODS)}"
        )
    return METHODS[name]
