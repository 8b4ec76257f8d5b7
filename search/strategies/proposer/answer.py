"""What a model answered, read strictly: a proposal is a point of the space as it stands, or it is refused."""

import json
import math
from collections.abc import Mapping
from typing import Any

from merging.catalog import Scalar
from merging.errors import InvalidRecipe
from search.space import Dimension, Space
from search.strategies.contract import Proposal

PLACES = 20  # brackets at which a list is looked for
SHOWN = 60  # most characters of what a model wrote that a reason repeats
THOUGHT = "</think>"


class Refused(Exception):
    """What a model proposed cannot be tried, or its answer cannot be read; the message says why."""


def read_list(text: str) -> list[Any]:
    """The first JSON list of objects in an answer, whatever is written around it.

    Raises:
        Refused: there is none.
    """
    text = text.rpartition(THOUGHT)[2]
    decoder, at = json.JSONDecoder(), -1
    for _ in range(PLACES):
        at = text.find("[", at + 1)
        if at < 0:
            break
        try:
            found, _end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            continue
        if isinstance(found, list) and any(isinstance(each, dict) for each in found):
            return found
    raise Refused("the answer holds no JSON list of objects")


def checked(space: Space, given: Any) -> Proposal:
    """The proposal that an object stands for. Nothing is mended: a number out of range is refused, not clipped.

    Raises:
        Refused: a key is missing or unknown, a value is none of its dimension's, or all of them make no recipe.
    """
    if not isinstance(given, Mapping):
        raise Refused(f"{_shown(given)} is no object")
    params: dict[str, Scalar] = {}

    def pick(dimension: Dimension) -> Scalar:
        if dimension.name not in given:
            raise Refused(f"{dimension.name} is missing")
        params[dimension.name] = value = _value(dimension, given[dimension.name])
        return value

    try:
        recipe = space.walk(pick)
    except InvalidRecipe as error:
        raise Refused(str(error)) from error
    unknown = [key for key in given if key not in params]
    if unknown:
        raise Refused(f"{_shown(unknown[0])} is no parameter of that recipe")
    return Proposal(params, recipe)


def _value(dimension: Dimension, given: Any) -> Scalar:
    if dimension.kind in ("bool", "choice"):
        choices = dimension.choices or (False, True)
        for choice in choices:
            if given == choice and type(given) is type(choice):
                return choice
        raise Refused(f"{dimension.name}: {_shown(given)} is none of {list(choices)}")
    if isinstance(given, bool) or not isinstance(given, int | float) or not _is_finite(given):
        raise Refused(f"{dimension.name}: {_shown(given)} is no number")
    if not dimension.low <= given <= dimension.high:
        raise Refused(f"{dimension.name}: {_shown(given)} is not in [{dimension.low:g}, {dimension.high:g}]")
    if dimension.kind == "int" and not float(given).is_integer():
        raise Refused(f"{dimension.name}: {_shown(given)} is no whole number")
    return int(given) if dimension.kind == "int" else float(given)


def _is_finite(number: int | float) -> bool:
    try:
        return math.isfinite(number)
    except OverflowError:  # a whole number beyond any float
        return False


def _shown(given: Any) -> str:
    try:
        text = json.dumps(given)
    except ValueError:  # more digits than Python writes
        text = "a number"
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
