"""Who takes part in the comparison of searches: our strategies with their studies, and the rivals by name.

To add one of ours, declare the strategy: it takes part with the plain space. A row of `OURS` says more.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from benchmarks.rivals.auto_merge import AutoMerge
from benchmarks.rivals.contract import Rival, Setting
from benchmarks.rivals.known import Known
from benchmarks.rivals.mergekit_evolve import MergekitEvolve
from benchmarks.rivals.mergenetic import Mergenetic
from benchmarks.rivals.sakana import Sakana
from benchmarks.rivals.sampled import Cold
from benchmarks.search_lab import named
from search.strategies.declared import STRATEGIES
from search.study import StudySpec, parse_study
from zoo.make import Zoo

METHODS = ("task_arithmetic", "ties", "dare_ties")
ONE = ("task_arithmetic",)
RACED = 3  # trials for each full evaluation of the budget, where most are stopped early


@dataclass(frozen=True)
class Entrant:
    """The study that one of ours gets.

    Attributes:
        space: its section `space`; None: nothing is said, the product decides.
        search: keys of its section `search`.
        trials: for each full evaluation of the budget; None: nothing is said, the documents end it.
    """

    space: Mapping[str, Any] | None
    search: Mapping[str, Any] = field(default_factory=dict)
    trials: int | None = RACED


def layered(methods: tuple[str, ...], **more: Any) -> dict[str, Any]:
    """The space that rivals search as well: these methods, numbers of its own for every layer.

    Args:
        more: keys of the section.
    """
    return {"methods": list(methods), "layers": "each", **more}


OURS: dict[str, Entrant] = {
    "auto": Entrant(None, {"strategy": "auto"}, None),
    "tpe:off": Entrant(layered(METHODS), {"strategy": "tpe", "prune": "off"}, 1),
    "cmaes:off": Entrant(layered(ONE), {"strategy": "cmaes", "prune": "off"}, 1),
    "greedy_soup": Entrant({"methods": ["linear"]}, {"strategy": "greedy_soup"}, 1),
    "tpe:per_group": Entrant(layered(METHODS, choose="per_group"), {"strategy": "tpe"}),
    "evolution:per_group": Entrant(layered(METHODS, choose="per_group"), {"strategy": "evolution"}),
}
RIVALS: dict[str, Callable[[Setting], Rival]] = {
    "known": Known,
    "random": partial(Cold, sampler="random", methods=METHODS),
    "qmc": partial(Cold, sampler="qmc", methods=ONE),
    "optuna_tpe": partial(Cold, sampler="tpe", methods=METHODS),
    "optuna_tpe:task_arithmetic": partial(Cold, sampler="tpe", methods=ONE),
    "mergekit_evolve:task_arithmetic": partial(MergekitEvolve, method="task_arithmetic"),
    "mergekit_evolve:ties": partial(MergekitEvolve, method="ties"),
    "mergekit_evolve:dare_ties": partial(MergekitEvolve, method="dare_ties"),
    "mergekit_evolve:task_arithmetic:whole": partial(MergekitEvolve, method="task_arithmetic", granularity=0),
    "sakana": Sakana,
    "mergenetic:dare_ties": partial(Mergenetic, method="dare_ties"),
    "mergenetic:task_arithmetic": partial(Mergenetic, method="task_arithmetic"),
    "auto_merge_llm": AutoMerge,
}


def entrant(name: str) -> Entrant:
    """The study of one of ours.

    Raises:
        ValueError: there is no such strategy.
    """
    if name in OURS:
        return OURS[name]
    if name not in STRATEGIES:
        raise ValueError(f"strategy {name!r} is unknown: choose of {', '.join(ours())}")
    return Entrant(layered(METHODS if STRATEGIES[name].choices else ONE), {"strategy": name})


def ours() -> tuple[str, ...]:
    """All of ours by name, but for those that need to be told whom to ask."""
    alone = (name for name, row in STRATEGIES.items() if row.alone)
    return tuple(dict.fromkeys([*(name for name in OURS if name.partition(":")[0] in STRATEGIES), *alone]))


def study_of(zoo: Zoo, asked: Entrant, seed: int, evaluations: int, documents: int | None, holdout: float) -> StudySpec:
    """A study of the zoo's skills; its seed is that of the split and of the search.

    Args:
        evaluations: full evaluations of the budget.
        documents: of the budget; None: it is not known yet.
        holdout: share of the documents.
    """
    search: dict[str, Any] = {"seed": seed, "parallel": 1, **asked.search}
    if asked.trials is not None or documents is None:
        search["trials"] = evaluations * (asked.trials or 1)
    if documents is not None:
        search["budget"] = {"documents": documents}
    return parse_study(
        {
            "schema": "mergesearch/study/v1",
            "name": f"seed-{seed}",
            "models": {
                "base": str(zoo.base),
                "experts": [{"path": str(path), "name": name} for name, path in zoo.experts.items()],
            },
            **({} if asked.space is None else {"space": dict(asked.space)}),
            "search": search,
            "evaluation": {"tasks": named(zoo.metrics), "include_path": str(zoo.tasks), "holdout": holdout},
        }
    )
