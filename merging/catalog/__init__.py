"""Every merge method, declared once: what it is, its hyper-parameters with ranges, what it needs, its paper.

Validation, the search space, `mergesearch methods`, the documentation and the engine all read these rows, which lie
by family in the files beside this one. Nothing here imports torch; a row names its code as `module:object`, loaded on
first use by `implementation`.
"""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from merging.catalog import (
    averaging,
    importing,
    learned,
    lowrank,
    masking,
    measured,
    sparse,
    spectral,
    spherical,
    structural,
)
from merging.catalog.declare import Method, Parameter, Scalar
from merging.errors import InvalidRecipe

__all__ = ["CATALOG", "FAMILIES", "Method", "Parameter", "Scalar", "implementation", "method", "recommended"]

FAMILIES: Mapping[str, tuple[Method, ...]] = {
    "averaging": averaging.METHODS,
    "sparse": sparse.METHODS,
    "masking": masking.METHODS,
    "importing": importing.METHODS,
    "spherical": spherical.METHODS,
    "spectral": (*spectral.METHODS, *lowrank.METHODS),
    "measured": measured.METHODS,
    "learned": learned.METHODS,
    "structural": structural.METHODS,
}
CATALOG: Mapping[str, Method] = {row.name: row for rows in FAMILIES.values() for row in rows}
_ALIASES = {alias: row.name for row in CATALOG.values() for alias in row.aliases}


def method(name: str, key: str = "method") -> Method:
    """The catalog's row, by its name or an alias.

    Raises:
        InvalidRecipe: there is no such method.
    """
    found = CATALOG.get(_ALIASES.get(name, name))
    if found is None:
        raise InvalidRecipe(key, name, "is not a merge method", f"use one of {', '.join(CATALOG)}")
    return found


def recommended() -> tuple[str, ...]:
    """The methods a study searches when it names none."""
    return tuple(m.name for m in CATALOG.values() if m.recommended)


def implementation(row: Method) -> Any:
    """The method's code (imports torch): one of the three shapes of `merging.methods.contract`."""
    module, _, name = row.code.partition(":")
    return getattr(import_module(module), name)
