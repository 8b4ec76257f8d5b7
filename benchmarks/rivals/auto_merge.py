"""auto-merge-llm's layer-wise search (arXiv:2502.04030): SMAC3 with Hyperband over documents.

For each range of layers a method out of linear, task arithmetic and TIES, and for attention, mlp and the rest of it the
numbers of every method, whichever is chosen: a weight a model of linear, one scale of task arithmetic, one scale and
one mask rate (at most 0.99) of TIES, all from 0 to 1. The methods' numbers are no conditions of the choice, as there.
Slerp, the fourth choice, takes two models of the set, which no group of our recipes does: it is left out.
SMAC's multi-fidelity facade: a random forest, expected improvement, Hyperband with eta 3 from 100 documents up, always
the first of each task, scored anew at every budget; each model alone seeds the design. SMAC's incumbent is the result.
"""

import logging
import math
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.rivals.contract import Question, Setting
from merging.errors import InvalidRecipe
from merging.recipe import GroupMerge, Modules, Recipe

LEAST_DOCUMENTS = 100
ETA = 3
LOCAL_SEARCHES = 1  # SMAC has ten: minutes for eight proposals of a hundred numbers, without a gain to be seen
METHODS = ("linear", "task_arithmetic", "ties")
MODULES: tuple[Modules, ...] = ("attention", "mlp", "other")
FAILED = 1.0


class AutoMerge:
    """A `Rival`."""

    def __init__(self, setting: Setting) -> None:
        from ConfigSpace import Configuration
        from smac import MultiFidelityFacade, Scenario

        logging.getLogger("smac").setLevel(logging.ERROR)
        self._setting = setting
        self._names = list(setting.experts)
        space = self._config_space()
        self._folder = tempfile.TemporaryDirectory()
        scenario = Scenario(
            space,
            output_directory=Path(self._folder.name),
            deterministic=True,
            n_trials=100 * setting.evaluations,  # documents end it, not trials
            min_budget=min(LEAST_DOCUMENTS, setting.documents),
            max_budget=setting.documents,
            seed=setting.seed,
        )
        begun = [Configuration(space, values=self._alone(space, name)) for name in self._names]
        self._search: Any = MultiFidelityFacade(
            scenario,
            _unused,
            overwrite=True,
            intensifier=MultiFidelityFacade.get_intensifier(scenario=scenario, eta=ETA),
            initial_design=MultiFidelityFacade.get_initial_design(scenario, n_configs=0, additional_configs=begun),
            acquisition_maximizer=MultiFidelityFacade.get_acquisition_maximizer(
                scenario, local_search_iterations=LOCAL_SEARCHES
            ),
            logging_level=False,
        )
        self._info: Any = None

    def ask(self) -> Question | None:
        """As `Rival.ask`."""
        try:
            self._info = self._search.ask()
        except StopIteration:
            return None
        share = math.ceil(self._info.budget / len(self._setting.order))
        documents = None if self._info.budget >= self._setting.documents else share
        try:
            return Question(self._decoded(self._info.config), documents)
        except InvalidRecipe:
            return Question(None)

    def tell(self, value: float | None) -> None:
        """As `Rival.tell`."""
        from smac.runhistory import TrialValue

        self._search.tell(self._info, TrialValue(cost=FAILED if value is None else 1.0 - value, time=0.0))

    def recommended(self) -> Recipe | None:
        """SMAC's incumbent, at the highest budget it has reached."""
        found = self._search.intensifier.get_incumbents()
        return self._decoded(found[0]) if found else None

    def _config_space(self) -> Any:
        from ConfigSpace import Categorical, ConfigurationSpace, Float

        space = ConfigurationSpace(seed=self._setting.seed)
        for layer in range(self._setting.layers):
            space.add(Categorical(f"method{layer}", METHODS))
            for modules in MODULES:
                place = f"{layer}.{modules}"
                space.add([Float(f"linear.{name}@{place}", (0.0, 1.0)) for name in self._names])
                space.add(Float(f"task_arithmetic.scale@{place}", (0.0, 1.0)))
                space.add(Float(f"ties.scale@{place}", (0.0, 1.0)))
                space.add(Float(f"ties.masked@{place}", (0.0, 0.99)))
        return space

    def _alone(self, space: Any, expert: str) -> dict[str, Any]:
        """The point of one model alone: linear in every layer."""
        values: dict[str, Any] = {}
        for name in space:
            if name.startswith("method"):
                values[name] = "linear"
            elif name.startswith("linear."):
                values[name] = float(name.startswith(f"linear.{expert}@"))
            else:
                values[name] = 0.1 if name.startswith("ties.masked") else 0.0
        return values

    def _decoded(self, config: Any) -> Recipe:
        groups: list[GroupMerge] = []
        for layer, span in enumerate(self._setting.spans):
            method = str(config[f"method{layer}"])
            for modules in MODULES:
                groups.append(self._group(config, method, span, f"{layer}.{modules}", modules))
        return self._setting.recipe(groups)

    def _group(self, config: Any, method: str, span: tuple[int, int], place: str, modules: Modules) -> GroupMerge:
        group, count = self._setting.group, len(self._names)
        if method == "linear":
            weights = [float(config[f"linear.{name}@{place}"]) for name in self._names]
            return group(span, method, weights, modules=modules)
        scale = float(config[f"{method}.scale@{place}"])
        if method == "task_arithmetic":
            return group(span, method, [scale] * count, modules=modules)
        own = {"lambda": scale, "density": 1.0 - float(config[f"ties.masked@{place}"])}
        return group(span, method, [1.0] * count, own, modules=modules)


def _unused(config: Any, seed: int = 0, budget: float = 0.0) -> float:
    """SMAC wants a function; it is asked and told instead."""
    raise AssertionError("asked and told")
