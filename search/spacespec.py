"""The section `space` of a study file: what may be varied, and whether the catalog has it. No torch here."""

import difflib
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from merging.catalog import CATALOG, Scalar, method, recommended
from merging.errors import InvalidInput, InvalidStudy


class SpaceSpec(BaseModel):
    """What may be varied.

    Attributes:
        methods: the choices; None: the catalog's recommended set.
        choose: whether one method is chosen for the study or one for each group.
        layers: number of layer ranges with coefficients of their own, or "each"; None: 1, or what `auto` decides.
        gradient: number of knots spread evenly over the layers; every layer's numbers lie on the lines between them.
        modules: whether attention, mlp and the rest share coefficients.
        bounds: `method.parameter` -> [low, high], instead of the catalog's range.
        fixed: `method.parameter` -> the value it has in every trial.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    methods: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    choose: Literal["per_study", "per_group"] = "per_study"
    layers: Annotated[int, Field(ge=1)] | Literal["each"] | None = None
    gradient: Annotated[int, Field(ge=2, le=64)] | None = None
    modules: Literal["together", "split"] = "together"
    bounds: dict[str, tuple[float, float]] = {}
    fixed: dict[str, Scalar] = {}

    @property
    def method_names(self) -> tuple[str, ...]:
        """The methods to choose from, by their own names."""
        return tuple(method(name).name for name in self.methods) if self.methods else recommended()


def check_space(space: SpaceSpec, experts: int) -> None:
    """The methods exist and take so many experts; bounds and fixed values name numbers that they have.

    Raises:
        InvalidStudy: anything else.
    """
    _check_methods(space.methods or recommended(), experts)
    if space.gradient and (space.layers not in (None, 1) or space.choose == "per_group"):
        other = "choose" if space.layers in (None, 1) else "layers"
        problem, remedy = "does not go with space.gradient", "leave out one of the two"
        raise InvalidStudy(f"space.{other}", getattr(space, other), problem, remedy)
    for key, (low, high) in space.bounds.items():
        _check_bound(f"space.bounds.{key}", key, low, high, space.method_names)
    for key, value in space.fixed.items():
        _check_fixed(f"space.fixed.{key}", key, value, space)


def _check_methods(names: tuple[str, ...], count: int) -> None:
    for index, name in enumerate(names):
        key = f"space.methods[{index}]"
        try:
            row = method(name, key)
        except InvalidInput as error:
            raise InvalidStudy(key, name, error.problem, near(name, CATALOG)) from error
        if row.name in (method(earlier).name for earlier in names[:index]):
            raise InvalidStudy(key, name, "is listed twice", "list each method once")
        if not row.experts[0] <= count <= row.experts[1]:
            wants = f"{row.experts[0]} to {row.experts[1]} experts"
            raise InvalidStudy(key, name, f"takes {wants}, and the study has {count}", "leave the method out")


def _check_fixed(place: str, key: str, value: Scalar, space: SpaceSpec) -> None:
    method_name, _, parameter_name = key.partition(".")
    if method_name not in space.method_names:
        raise InvalidStudy(place, key, "names no method of this study", f"use one of {', '.join(space.method_names)}")
    row = CATALOG[method_name]
    known = {p.name: p for p in row.parameters}
    if parameter_name not in known:
        problem = f"names no parameter of {method_name}"
        raise InvalidStudy(place, key, problem, f"its parameters: {', '.join(known) or 'none'}")
    if key in space.bounds:
        raise InvalidStudy(place, value, "has bounds as well", "leave out one of the two")
    try:
        known[parameter_name].check(value, place)
    except InvalidInput as error:
        raise InvalidStudy(place, value, error.problem, error.remedy) from error


def _check_bound(place: str, key: str, low: float, high: float, names: tuple[str, ...]) -> None:
    method_name, _, parameter_name = key.partition(".")
    if method_name not in names:
        raise InvalidStudy(place, key, "names no method of this study", f"use one of {', '.join(names)}")
    row = CATALOG[method_name]
    parameter = row.parameter(parameter_name)
    weight = row.weight if row.weighting == "per_expert" else None  # others are a choice, or an order, of experts
    if parameter is None or parameter.kind in ("bool", "choice") or (parameter is row.weight and weight is None):
        known = [p.name for p in (weight, *row.parameters) if p and p.kind in ("float", "int")] or ["none"]
        raise InvalidStudy(place, key, "names no numeric parameter", f"those of {method_name}: {', '.join(known)}")
    if not low <= high:
        raise InvalidStudy(place, [low, high], "is no range", "write [low, high] with low <= high")
    if parameter.kind == "int" and not (float(low).is_integer() and float(high).is_integer()):
        raise InvalidStudy(place, [low, high], "bounds whole numbers", "write whole numbers")
    if parameter.log and low <= 0:
        raise InvalidStudy(place, [low, high], "is searched on a log scale", "let low be above 0")
    if low < parameter.minimum or high > parameter.maximum:
        lowest = f"[{parameter.minimum:g}, {parameter.maximum:g}]"
        raise InvalidStudy(place, [low, high], "is impossible", f"stay within {lowest}")


def near(value: str, known: Any) -> str:
    """The remedy for a name that is not known."""
    near = difflib.get_close_matches(value, list(known), n=1)
    return f"did you mean {near[0]!r}? known: {', '.join(known)}" if near else f"use one of {', '.join(known)}"
