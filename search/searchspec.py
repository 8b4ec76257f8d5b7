"""The section `search` of a study file: how to search, and how much. No torch here."""

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, field_validator, model_validator

from db.records import DEFAULT_POOL, POOL
from merging.catalog import Scalar

StrategyName = Literal[
    "auto", "random", "qmc", "grid", "tpe", "gp", "cmaes", "nsga2", "nsga3", "arms", "greedy_soup", "pruned_soup",
    "ensemble_soup", "evolution", "layer_order", "carbs", "inclusion", "proposer"
]  # fmt: skip
Prune = Literal["off", "paired_test", "halving", "hyperband", "one_shot", "history"]
DEFAULT_PRUNE: Prune = "halving"
"""A quarter of full scoring's documents; what that costs: docs/benchmarks.md."""
TRIALS = 60
SATISFIED = ("auto",)  # strategies that end by themselves once little is left to gain, unless the study says otherwise
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
        recipes: files, ours or mergekit's, over the study's base and experts; all are tried.
        earlier: whether the best of earlier studies over the same base are tried.
        most: the most starts beside baselines, defaults and recipes; None: as many as make a third of the trials.
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
        stop: whether the search ends once the trials left are expected to gain less than the noise (true), or than so
            much (a number, in the objective's units); None: `StudySpec.stop` decides.
        gates: whether candidates that are broken are found by a few prompts and texts before they are scored.
        starts: what it begins with.
        margin: by how many standard errors a trial must beat the best start to be recommended instead; 0: by anything.
        explain: whether the winner is scored with parts changed at the end, to say what it owes to what.
    """

    strategy: StrategyName = "auto"
    options: dict[str, Scalar] = {}
    trials: Annotated[int, Field(ge=1, le=UNLIMITED)] = TRIALS
    parallel: Annotated[int, Field(ge=1, le=64)] = 2
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    pool: Annotated[str, Field(pattern=f"^{POOL}$")] = DEFAULT_POOL
    prune: Prune | None = None
    budget: BudgetSpec = BudgetSpec()
    stop: StrictBool | Annotated[float, Field(gt=0)] | None = None
    gates: bool = False
    starts: StartsSpec = StartsSpec()
    margin: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 2.0
    explain: StrictBool = True

    def placed(self, place: Callable[[str, str], str]) -> "SearchSpec":
        """The same with its files elsewhere, as `StudySpec.placed`."""
        recipes = tuple(place(f"search.starts.recipes[{i}]", path) for i, path in enumerate(self.starts.recipes))
        return self.model_copy(update={"starts": self.starts.model_copy(update={"recipes": recipes})})

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
