"""mergekit-evolve (Arcee AI, release 0.1.5): pycma over one method's numbers, with the tool's own settings.

One genome: for each group of layers and each model the method's numbers, `weight`, and `density` for ties and
dare_ties. It begins at weight 1/n and density 1 with step 1/6 and no bounds: |weight| and |density|, the latter cut at
1, are what is merged, so the landscape is folded. `normalize` is on for ties and dare_ties. CMA-ES is pycma's with
pycma's population and pycma's own ends (a flat generation stops it); the tool never restarts it. The best recipe is
written after each generation. Its seed never reaches pycma; here it does, so that a run can be repeated.
"""

import logging
from typing import Any

from benchmarks.rivals.contract import Best, Question, Setting
from merging.catalog import Scalar
from merging.errors import InvalidRecipe
from merging.recipe import Recipe

SIGMA = 1 / 6
NUMBERS = {"task_arithmetic": 1, "ties": 2, "dare_ties": 2}
FAILED = 0.0  # the tool ends with a traceback; the lowest accuracy there is lets it go on


class MergekitEvolve:
    """A `Rival`.

    Args:
        method: the one that its user has chosen.
        granularity: layers that share numbers, a divisor of their number; 0: all of them.
    """

    def __init__(self, setting: Setting, method: str, granularity: int = 1) -> None:
        import cma

        self._setting, self._method = setting, method
        step = granularity or setting.layers
        self._spans = [(first, first + step) for first in range(0, setting.layers, step)]
        numbers = [1.0 / len(setting.experts), 1.0][: NUMBERS[method]]
        start = numbers * (len(self._spans) * len(setting.experts))
        options = {"maxfevals": setting.evaluations, "seed": setting.seed + 1, "verbose": -9}  # 0: by the clock
        logging.getLogger("cma").setLevel(logging.ERROR)
        self._search: Any = cma.CMAEvolutionStrategy(start, SIGMA, options)
        self._generation: list[Any] = []
        self._costs: list[float] = []
        self._recipe: Recipe | None = None
        self._open, self._closed = Best(), Best()

    def ask(self) -> Question | None:
        """As `Rival.ask`."""
        if not self._generation:
            if self._search.stop():
                return None
            self._generation = list(self._search.ask())
        try:
            self._recipe = self._decoded(self._generation[len(self._costs)])
        except InvalidRecipe:
            self._recipe = None
        return Question(self._recipe)

    def tell(self, value: float | None) -> None:
        """As `Rival.tell`."""
        self._open.note(self._recipe, value)
        self._costs.append(-(FAILED if value is None else value))
        if len(self._costs) == len(self._generation):
            self._search.tell(self._generation, self._costs)
            self._generation, self._costs = [], []
            self._closed.note(self._open.recipe, self._open.value)

    def recommended(self) -> Recipe | None:
        """The best of the generations that are closed."""
        return self._closed.recipe

    def _decoded(self, genome: Any) -> Recipe:
        """The genome is laid out by layer group, model, number."""
        experts, numbers = len(self._setting.experts), NUMBERS[self._method]
        values = abs(genome).reshape(len(self._spans), experts, numbers)
        groups = []
        for span, of_group in zip(self._spans, values, strict=True):
            if numbers == 1:
                groups.append(self._setting.group(span, self._method, of_group[:, 0]))
                continue
            own: dict[str, Scalar] = {"normalize": True, **({"rescale": "l1"} if self._method == "dare_ties" else {})}
            groups.append(self._setting.group(span, self._method, of_group[:, 0], own, of_group[:, 1]))
        return self._setting.recipe(groups)
