"""mergenetic (the library of MERGE³, arXiv:2502.10436): pymoo's genetic algorithm over a few numbers a model.

Its genomes for more than two models have a weight, and for TIES with DARE a density, in [0, 1] a model, the same in all
layers; crossover, mutation, sampling and the removal of duplicates are pymoo's defaults, as in its examples. These
leave the population to the user (their files say 1): 25 is our choice. The best of the population is the result. Its
estimators from few documents exist for a few public benchmarks alone: here it has the score on all search
documents, as every rival.
"""

from typing import Any

import numpy as np

from benchmarks.rivals.contract import Best, Question, Setting
from merging.errors import InvalidRecipe
from merging.recipe import Recipe

POPULATION = 25
FAILED = 1.0  # a cost: its own run ends with a traceback


class Mergenetic:
    """A `Rival`.

    Args:
        method: `dare_ties` or `task_arithmetic`.
    """

    def __init__(self, setting: Setting, method: str = "dare_ties") -> None:
        from pymoo.algorithms.soo.nonconvex.ga import GA
        from pymoo.core.problem import Problem
        from pymoo.core.termination import NoTermination
        from pymoo.operators.crossover.sbx import SBX
        from pymoo.operators.mutation.pm import PM
        from pymoo.operators.sampling.rnd import FloatRandomSampling

        self._setting, self._method = setting, method
        numbers = len(setting.experts) * (2 if method == "dare_ties" else 1)
        self._problem: Any = Problem(n_var=numbers, n_obj=1, xl=0.0, xu=1.0)
        self._search: Any = GA(
            pop_size=POPULATION,
            sampling=FloatRandomSampling(),
            crossover=SBX(),
            mutation=PM(),
            eliminate_duplicates=True,
        )
        self._search.setup(self._problem, termination=NoTermination(), seed=setting.seed, verbose=False)
        self._generation: Any = None
        self._costs: list[float] = []
        self._recipe: Recipe | None = None
        self._open, self._closed = Best(), Best()

    def ask(self) -> Question | None:
        """As `Rival.ask`."""
        if self._generation is None:
            self._generation = self._search.ask()
            if self._generation is None or len(self._generation) == 0:  # only duplicates are left
                return None
        try:
            self._recipe = self._decoded(self._generation[len(self._costs)].X)
        except InvalidRecipe:
            self._recipe = None
        return Question(self._recipe)

    def tell(self, value: float | None) -> None:
        """As `Rival.tell`."""
        from pymoo.core.evaluator import Evaluator
        from pymoo.problems.static import StaticProblem

        self._open.note(self._recipe, value)
        self._costs.append(FAILED if value is None else -value)
        if len(self._costs) == len(self._generation):
            told = StaticProblem(self._problem, F=np.array(self._costs)[:, None])
            Evaluator().eval(told, self._generation)
            self._search.tell(infills=self._generation)
            self._generation, self._costs = None, []
            self._closed.note(self._open.recipe, self._open.value)

    def recommended(self) -> Recipe | None:
        """The best of the generations that are closed; before the first is, the best so far."""
        return self._closed.recipe or self._open.recipe

    def _decoded(self, genome: Any) -> Recipe:
        """All weights come first, then all densities."""
        experts, whole = len(self._setting.experts), (0, self._setting.layers)
        if self._method == "task_arithmetic":
            return self._setting.recipe([self._setting.group(whole, self._method, genome)])
        weights, densities = genome[:experts], genome[experts:]
        return self._setting.recipe([self._setting.group(whole, "dare_ties", weights, {"rescale": "l1"}, densities)])
