"""The value a parameter has for one tensor: scopes from near to far, filters, gradients. No torch here."""

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from pydantic import TypeAdapter, ValidationError

from merging.catalog import Scalar
from merging.errors import InvalidRecipe
from merging.mergekit.document import Plain, Rule
from merging.mergekit.names import IGNORED, Foreign, Knob

Scope = Mapping[str, tuple[Rule, ...]]


def evaluate(knob: Knob, scopes: Iterable[Scope], name: str, at: float) -> Scalar:
    """The value of a parameter for a tensor.

    Args:
        scopes: what was said, the nearest first (model, slice, file); the first with a rule that fits wins.
        name: the tensor's name, which filters look into.
        at: its layer's place in the slice, from 0 to 1: where gradients are read.

    Raises:
        InvalidRecipe: nothing was said of a parameter without a default, or it is of another type.
    """
    for scope in scopes:
        rule = next((rule for rule in scope.get(knob.name, ()) if rule.fits(name)), None)
        if rule is not None and rule.value != ():
            return _along(rule.value, at, knob)
    if knob.default is None:
        problem, remedy = f"is given for no model or not for {name}", "give it for every model"
        raise InvalidRecipe(f"parameters.{knob.name}", None, problem, remedy)
    return knob.default


def _along(value: Plain | tuple[Plain, ...], at: float, knob: Knob) -> Scalar:
    """A gradient's value at `at`: numbers are interpolated, switches picked."""
    if not isinstance(value, tuple):
        return _typed(value, knob)
    values = [_typed(each, knob) for each in value]
    place = at * (len(values) - 1)
    below = int(place)
    if knob.kind == "bool":
        return values[below]
    low, high = float(values[below]), float(values[min(below + 1, len(values) - 1)])
    share = place - below
    return _typed((1 - share) * low + share * high, knob)


@cache
def _adapter(kind: str) -> TypeAdapter[Any]:
    return TypeAdapter({"bool": bool, "int": int, "float": float}[kind])


def _typed(value: Plain, knob: Knob) -> Scalar:
    """The value in its parameter's type, by mergekit's own lenient rules (YAML reads 1e-5 as text)."""
    try:
        typed: Scalar = _adapter(knob.kind).validate_python(value)
    except ValidationError as error:
        problem = f"is not of type {knob.kind}"
        raise InvalidRecipe(f"parameters.{knob.name}", value, problem, "mend it") from error
    return typed


def check_known(row: Foreign, scope: Scope, key: str, *, of_model: bool = False) -> None:
    """Every parameter said here is one that the method reads here.

    Raises:
        InvalidRecipe: it is not, and mergekit would pass over it in silence.
    """
    for name, setting in scope.items():
        if name == IGNORED:
            continue
        knob = next((knob for knob in row.knobs if knob.name == name), None)
        if knob is None:
            known = ", ".join(knob.name for knob in row.knobs) or "none"
            problem = f"is no parameter of mergekit's {row.name}"
            raise InvalidRecipe(f"{key}.{name}", _shown(setting), problem, f"its parameters: {known}")
        if of_model and not knob.per_model:
            problem = f"is one value for all models in mergekit's {row.name}"
            raise InvalidRecipe(f"{key}.{name}", _shown(setting), problem, "write it under parameters of all")


def _shown(setting: tuple[Rule, ...]) -> object:
    return setting[0].value if len(setting) == 1 else [rule.value for rule in setting]
