"""One recipe to begin with, and what its origin says of it."""

from dataclasses import dataclass

from db.records import ORIGINALS
from evaluation.constraints import BASE
from merging.catalog import Scalar
from merging.recipe import Recipe

UNIFORM = "uniform_soup"


@dataclass(frozen=True)
class Start:
    """One recipe to begin with.

    Attributes:
        params: its point in the search space; None where the space does not reach it.
    """

    origin: str
    recipe: Recipe
    params: dict[str, Scalar] | None


def expert_origin(name: str) -> str:
    """The origin of the trial that is one expert alone."""
    return f"expert:{name}"


def is_baseline(origin: str) -> bool:
    """Whether a start is a fixed point of comparison: an expert, the uniform soup, the base. All are scored in full."""
    return origin in (UNIFORM, BASE) or origin.startswith(expert_origin(""))


def is_start(origin: str, strategy: str) -> bool:
    """Whether its study began with a trial of that origin: no strategy proposed it, and no other trial led to it.

    Args:
        strategy: the study's.
    """
    return origin != strategy and not origin.startswith((f"{strategy}:", ORIGINALS))
