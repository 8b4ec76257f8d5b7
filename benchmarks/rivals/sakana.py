"""Sakana AI's evolutionary merge in parameter space (Akiba et al. 2024, arXiv:2403.13187), with its published setting.

TIES with DARE, a weight and a density in [0, 1] for each layer and model; Optuna's CMA-ES from 0.5 with step 1/6 and a
population of 4 + ⌊3 ln n⌋; the best trial is the result. Their search code was never released: what the paper does not
say (that weights are not normalised, L1 rescaling) is as in mergekit's dare_ties, which made their models.
"""

import math
import warnings
from typing import Any

from benchmarks.rivals.contract import Best, Question, Setting
from merging.errors import InvalidRecipe
from merging.recipe import Recipe


class Sakana:
    """A `Rival`."""

    def __init__(self, setting: Setting) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._setting = setting
        self._names = [
            [(f"{kind}{layer}.{expert}") for expert in setting.experts]
            for layer in range(setting.layers)
            for kind in ("weight", "density")
        ]
        names = [name for row in self._names for name in row]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # x0 and sigma0, which are the setting
            sampler = optuna.samplers.CmaEsSampler(
                x0=dict.fromkeys(names, 0.5),
                sigma0=1 / 6,
                popsize=4 + math.floor(3 * math.log(len(names))),
                seed=setting.seed,
                warn_independent_sampling=False,
            )
        self._study = optuna.create_study(direction="maximize", sampler=sampler)
        self._trial: Any = None
        self._recipe: Recipe | None = None
        self._best = Best()

    def ask(self) -> Question | None:
        """As `Rival.ask`."""
        self._trial = self._study.ask()
        rows = [[self._trial.suggest_float(name, 0.0, 1.0) for name in row] for row in self._names]
        pairs = zip(self._setting.spans, rows[::2], rows[1::2], strict=True)
        own = {"rescale": "l1"}
        try:
            self._recipe = self._setting.recipe([self._setting.group(s, "dare_ties", w, own, d) for s, w, d in pairs])
        except InvalidRecipe:
            self._recipe = None
        return Question(self._recipe)

    def tell(self, value: float | None) -> None:
        """As `Rival.tell`."""
        from optuna.trial import TrialState

        self._best.note(self._recipe, value)
        if value is None:
            self._study.tell(self._trial, state=TrialState.FAIL)
        else:
            self._study.tell(self._trial, value)

    def recommended(self) -> Recipe | None:
        """As `Rival.recommended`."""
        return self._best.recipe
