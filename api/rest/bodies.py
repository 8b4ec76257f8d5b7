"""Request bodies: JSON or YAML, read only after the key was looked at, and refused where they could do harm."""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import yaml
from fastapi import Depends, Request

from api.rest.auth import MayRun
from api.rest.problems import Refused
from merging.errors import InvalidInput
from search.yamlfile import understand_exponents

_YAML = ("application/yaml", "application/x-yaml", "text/yaml", "text/x-yaml")
_MOST_TEXT, _MOST_VALUES, _MOST_DEPTH, _MOST_BITS = 4096, 10_000, 50, 64
_OF_TAGS = (LookupError, AttributeError, TypeError, ArithmeticError)  # what PyYAML lets out of `!!bool maybe` and such
_Parser: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml, 10 times as fast, where it is there


class Unreadable(InvalidInput):
    """The request's body cannot be taken for what it should be."""


@dataclass(frozen=True)
class Body:
    """A body as it was sent; `media_type` without parameters."""

    content: bytes
    media_type: str


async def _body(request: Request, key: MayRun) -> Body:
    media_type = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    return Body(await request.body(), media_type)


Sent = Annotated[Body, Depends(_body)]


def content(body: Body, *, yaml_too: bool = False) -> Any:
    """What the body says.

    Raises:
        Refused: of another media type.
        Unreadable: it is not what it says it is, or larger than anything sensible.
    """
    if body.media_type in _YAML and yaml_too:
        found = _from_yaml(body.content)
    elif body.media_type == "application/json":
        found = _from_json(body.content)
    else:
        accepted = "application/json or application/yaml" if yaml_too else "application/json"
        detail = f"the body's Content-Type is {body.media_type[:100]!r}; send {accepted}"
        raise Refused(415, "wrong-media-type", detail, headers={"Accept": accepted.replace(" or ", ", ")})
    _require_sensible(found)
    return found


def _from_json(text: bytes) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_once, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise Unreadable("body", None, f"is not JSON ({_cause(error)})", "send one JSON object") from error


def _from_yaml(text: bytes) -> Any:
    try:
        decoded = text.decode()
        _require_flat(decoded)
        return yaml.load(decoded, Loader=_Loader)
    except (yaml.YAMLError, ValueError, RecursionError, *_OF_TAGS) as error:
        raise Unreadable("body", None, f"is not YAML ({_cause(error)})", "mend that line") from error


def _require_flat(text: str) -> None:
    """See that a loader can take it: aliases multiply, and libyaml's composer has no bottom."""
    depth = 0
    for event in yaml.parse(text, Loader=_Parser):
        if isinstance(event, yaml.AliasEvent):
            raise ValueError("it uses an alias (*name), which is not accepted here")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _MOST_DEPTH:
            raise RecursionError


class _Loader(_Parser):  # type: ignore[misc]
    """YAML without objects, and without a key given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        pairs = [(self.construct_object(key, deep=True), None) for key, _ in node.value]
        for key, _ in pairs:
            if not isinstance(key, str):
                raise ValueError(f"the key {str(key)[:100]!r} is no text; put it in quotes")
        _once(pairs)
        return dict(super().construct_mapping(node, deep))


understand_exponents(_Loader)


def _once(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    """The pairs as a mapping; of a key given twice, the last would win without a word."""
    found: dict[Any, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {str(key)[:100]!r} is given twice")
        found[key] = value
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


def _cause(error: Exception) -> str:
    text = "it is nested too deeply" if isinstance(error, RecursionError) else " ".join(str(error).split())
    return text[:300]


def _require_sensible(found: Any) -> None:
    """Refuse what no sensible request holds and what a database or a message about it could choke on."""
    for number, value in enumerate(_values(found)):
        if number >= _MOST_VALUES:
            raise Unreadable("body", None, f"holds more than {_MOST_VALUES} values", "send a smaller one")
        if isinstance(value, str) and len(value) > _MOST_TEXT:
            raise Unreadable("body", f"{value[:50]}…", f"is longer than {_MOST_TEXT} characters", "shorten it")
        if isinstance(value, str) and ("\0" in value or (not value.isascii() and _has_surrogates(value))):
            raise Unreadable("body", ascii(value)[:100], "is no plain text", "leave NUL and half characters out")
        if not isinstance(value, dict | list | str | int | float | None):
            raise Unreadable("body", str(value)[:100], f"is a {type(value).__name__}", "put it in quotes")
        if isinstance(value, int) and value.bit_length() > _MOST_BITS:  # of many more, Python cannot even show it
            raise Unreadable("body", None, f"holds a number of more than {_MOST_BITS} bits", "write a smaller one")
        if isinstance(value, float) and not math.isfinite(value):
            raise Unreadable("body", str(value), "is no finite number", "write a number")


def _values(found: Any) -> Iterator[Any]:
    waiting = [found]
    while waiting:
        value = waiting.pop()
        yield value
        if isinstance(value, dict):
            waiting += [*value.keys(), *value.values()]
        elif isinstance(value, list):
            waiting += value


def _has_surrogates(text: str) -> bool:
    return any("\ud800" <= letter <= "\udfff" for letter in text)
