"""Stable text for what a task's configuration holds: the same in every process, whatever lies where in memory.

A task file may name functions in nearly every slot (`!function utils.process_docs`); their source is what counts.
"""

import functools
import inspect
import json
import re
from collections.abc import Mapping
from typing import Any

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


def described(value: Any) -> Any:
    """A value as JSON has it, with text in place of functions and of all else that JSON does not know."""
    return _described(value, ())


def _described(value: Any, above: tuple[int, ...]) -> Any:
    """Args: above: identities of the values this one lies in; a value inside itself has no end."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if id(value) in above:
        return "..."
    inside = (*above, id(value))
    if isinstance(value, Mapping):
        return {_key(key, inside): _described(entry, inside) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_described(entry, inside) for entry in value]
    if isinstance(value, (set, frozenset)):
        return sorted((_described(entry, inside) for entry in value), key=_sortable)
    if isinstance(value, functools.partial):
        return {"partial": [_described(part, inside) for part in (value.func, value.args, value.keywords)]}
    if callable(value):
        return _callable(value, inside)
    return _ADDRESS.sub("", str(value))


def _key(key: Any, inside: tuple[int, ...]) -> str:
    return key if isinstance(key, str) else _sortable(_described(key, inside))


def _sortable(entry: Any) -> str:
    return json.dumps(entry, sort_keys=True)


def _callable(value: Any, inside: tuple[int, ...]) -> Any:
    """Source of a function or class, a method's with its object; of an object that can be called, also what it holds.

    What has no source (built-in, compiled, typed at a prompt) goes by its name.
    """
    if inspect.ismethod(value):
        return {"method": [_code(value), _described(value.__self__, inside)]}
    if hasattr(value, "__qualname__"):
        return _code(value)
    return {"object": [_code(type(value)), _described(getattr(value, "__dict__", {}), inside)]}


def _code(value: Any) -> str:
    try:
        return inspect.getsource(value)
    except (OSError, TypeError):
        # lm-eval names the module of a task's own file by its path, which differs between machines
        module = (getattr(value, "__module__", None) or "builtins").rpartition("/")[2]
        return f"{module}.{value.__qualname__}"
