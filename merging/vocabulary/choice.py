"""Whose vocabulary a merge has: the base's, an expert's, or that of all models. No torch here."""

from collections.abc import Sequence

from merging.errors import InvalidRecipe

BASE, UNION = "base", "union"


def check_choice(tokenizer: str, experts: Sequence[str], key: str = "tokenizer") -> None:
    """Checks the choice by itself; `base` and `union` are never taken for experts of that name.

    Raises:
        InvalidRecipe: neither `base`, `union` nor one of the experts.
    """
    if tokenizer not in (BASE, UNION, *experts):
        raise InvalidRecipe(key, tokenizer, "is no expert", f"use {', '.join((BASE, UNION, *experts))}")
