"""Optuna's samplers at their defaults, cold: random draws, quasi-random ones, and TPE, over our own search space.

What most people who search for a merge write themselves: an Optuna study with nothing to begin from.
"""

import warnings
from collections.abc import Sequence
from typing import Any, Literal

from benchmarks.rivals.contract import Best, Question, Setting
from merging.catalog import CATALOG, Scalar
from merging.errors import InvalidRecipe
from merging.recipe import Recipe
from merging.schedule import group_keys
from search.space import Dimension, Space
from search.strategies.sampled import suggest


class Cold:
    """A `Rival`.

    Args:
        methods: the choices, one for the whole recipe; every layer has numbers of its own.
    """

    def __init__(self, setting: Setting, sampler: Literal["random", "qmc", "tpe"], methods: Sequence[str]) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._study = optuna.create_study(direction="maximize", sampler=_sampler(sampler, setting.seed))
        self._space = Space(
            base=setting.base,
            experts=dict(setting.experts),
            groups=group_keys(setting.layers, "each", "together"),
            methods=tuple(CATALOG[name] for name in methods),
            per_group=False,
            bounds={},
            seed=setting.seed,
            dtype=None,
        )
        self._trial: Any = None
        self._recipe: Recipe | None = None
        self._best = Best()

    def ask(self) -> Question | None:
        """As `Rival.ask`."""
        self._trial = self._study.ask()

        def pick(dimension: Dimension) -> Scalar:
            return suggest(self._trial, dimension)

        try:
            self._recipe = self._space.walk(pick)
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


def _sampler(name: str, seed: int) -> Any:
    import optuna

    if name == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    if name == "tpe":
        return optuna.samplers.TPESampler(seed=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.QMCSampler(scramble=True, seed=seed, warn_independent_sampling=False)
