"""The section `search` of a study file: how to search, and how much. No torch here."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from db.records import DEFAULT_POOL, POOL
from merging.catalog import Scalar

StrategyName = Literal["random", "tpe", "cmaes", "greedy_soup"]
Prune = Literal["off", "paired_test", "halving", "hyperband", "one_shot"]
DEFAULT_PRUNE: Prune = "halving"
"""A quarter of full scoring's documents; what that costs: docs/benchmarks.md."""
TRIALS = 60
UNLIMITED = 1_000_000  # trials of a study whose budget is in minutes or documents


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class BudgetSpec(_Frozen):
    """What a search may spend beside trials; it ends with the first of them that is used up.

    Attributes:
        minutes: of searching, by the clock; a study that is paused or not run spends none.
        documents: search documents that are scored for its trials.
    """

    minutes: Annotated[float, Field(gt=0)] | None = None
    documents: Annotated[int, Field(ge=1)] | None = None


class StartsSpec(_Frozen):
    """What a study begins with beside its baselines and its methods' defaults.

    Attributes:
        recipes: files, ours or mergekit's, over the study's base and experts.
        earlier: whether the best of earlier studies over the same base are tried.
        most: the most starts, baselines not counted; None: a third of the trials.
    """

    recipes: tuple[str, ...] = ()
    earlier: bool = True
    most: Annotated[int, Field(ge=0)] | None = None


class SearchSpec(_Frozen):
    """How to search.

    Attributes:
        options: of the strategy, by name (`search.strategies.declared`).
        trials: how many recipes are tried, the known good starts included.
        parallel: how many at the same time, each in a process of its own.
        pool: the workers of a service that score this study, by the name they were started with.
        prune: how a trial is stopped before all documents are scored, in the file also true (`DEFAULT_PRUNE`) and
            false (`off`); None: `StudySpec.racing` decides.
        budget: other limits than trials.
        starts: what it begins with.
    """

    strategy: StrategyName = "tpe"
    options: dict[str, Scalar] = {}
    trials: Annotated[int, Field(ge=1, le=UNLIMITED)] = TRIALS
    parallel: Annotated[int, Field(ge=1, le=64)] = 2
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    pool: Annotated[str, Field(pattern=f"^{POOL}$")] = DEFAULT_POOL
    prune: Prune | None = None
    budget: BudgetSpec = BudgetSpec()
    starts: StartsSpec = StartsSpec()

    @field_validator("prune", mode="before")
    @classmethod
    def _switch(cls, value: Any) -> Any:
        """YAML reads a bare `off` as false."""
        return (DEFAULT_PRUNE if value else "off") if isinstance(value, bool) else value

    @model_validator(mode="before")
    @classmethod
    def _limited_otherwise(cls, content: Any) -> Any:
        """A study with another limit has as many trials as that allows, unless it names a number."""
        if isinstance(content, dict) and content.get("budget") and "trials" not in content:
            return {**content, "trials": UNLIMITED}
        return content
