"""Fronts of several objectives on the zoo: searches that follow all of them, and searches of weighted sums, pooled.

The rule: both spend the same documents. A recipe counts once for each entrant that scores it, so the searches of a
pool pay for the starts that they share only once, as they do where studies share a store.
"""

import tempfile
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from api.creating import create_or_resume
from api.prepared import Fingerprinted, Prepared, prepare
from benchmarks.racing_lab import SKILLS, Lab
from db.store import open_home
from evaluation.result import Infeasible, Part, Scored
from evaluation.wanted import Wanted
from merging.recipe import Recipe
from search.controller import Controller, Search
from search.dispatch import InlineDispatcher
from search.hypervolume import front, hypervolume
from search.opening import open_search
from search.seeds import derive
from search.starts.known import alone, nothing
from search.study import parse_study
from zoo.make import Zoo
from zoo.tasks import METRICS

Floats = NDArray[np.float64]
WARM = 6  # starts of every search beside baselines and defaults
HOLDOUT = 0.5
EQUAL = (1.0,) * len(SKILLS)


@dataclass(frozen=True, slots=True)
class Terms:
    """What all entrants have alike.

    Attributes:
        trials: recipes that each may score.
        documents: of each task, search documents and holdout together.
        layers: ranges of layers, each with a weight an expert.
    """

    trials: int
    documents: int
    layers: int


@dataclass(frozen=True, slots=True)
class Entrant:
    """A way to a front.

    Attributes:
        sums: weighted sums that are searched one after the other; 0: all objectives at once.
    """

    strategy: str
    sums: int = 0

    @property
    def name(self) -> str:
        """As in the table."""
        return f"{self.sums} weighted sums, `{self.strategy}`" if self.sums else f"`{self.strategy}`"


@dataclass(frozen=True, slots=True)
class Found:
    """A front.

    Attributes:
        documents: search documents scored for it.
        size: its points.
        search, holdout: its hypervolume above the base's scores, in units of the box up to the best expert of each
            task, by the scores on those documents.
        best: the best mean of the four skills on the front, on the holdout.
    """

    documents: int
    size: int
    search: float
    holdout: float
    best: float


class Bench:
    """All entrants of one seed, with the same split; a recipe is scored once, and counts for each entrant anew."""

    def __init__(self, zoo: Zoo, seed: int, terms: Terms) -> None:
        self._zoo, self._seed, self._terms = zoo, seed, terms
        first = self._prepared("random", EQUAL, terms.trials)
        self._lab = Lab(zoo, first.suite)
        self._fingerprints: dict[str, str] = first.setup["fingerprints"]
        self._outcomes: dict[tuple[str, Part], Scored | Infeasible] = {}
        self._each = sum(map(len, first.suite.wanted("search").documents.values()))
        ends = [nothing(first.space).recipe, *(alone(first.space, name).recipe for name in first.space.experts)]
        self._ends: dict[Part, Floats] = {part: self._values(ends, part) for part in ("search", "holdout")}

    def run(self, entrant: Entrant) -> Found:
        """Search, and measure the front of all that was scored."""
        recipes: dict[str, Recipe] = {}
        if not entrant.sums:
            self._search(self._prepared(entrant.strategy, EQUAL, self._terms.trials, "pareto"), recipes)
        for index, weights in enumerate(vectors := weightings(entrant.sums, self._seed)):
            share = (self._terms.trials - len(recipes)) // (len(vectors) - index)
            prepared = self._prepared(entrant.strategy, weights, self._terms.trials)
            known = sum(start.recipe.digest(self._fingerprints) in recipes for start in prepared.starts)
            self._search(self._prepared(entrant.strategy, weights, share + known), recipes, draws=index)
        return self._found(list(recipes.values()))

    def _prepared(self, strategy: str, weights: Sequence[float], trials: int, objective: str = "mean") -> Prepared:
        tasks = zip(SKILLS, weights, strict=True)
        content: dict[str, Any] = {
            "schema": "mergesearch/study/v1",
            "name": "front",
            "models": {
                "base": str(self._zoo.base),
                "experts": [{"path": str(path), "name": name} for name, path in self._zoo.experts.items()],
            },
            "space": {"methods": ["task_arithmetic"], "layers": self._terms.layers},
            "search": {
                "strategy": strategy,
                "seed": self._seed,
                "trials": trials,
                "parallel": 1,
                "prune": "off",
                "starts": {"most": WARM},
            },
            "evaluation": {
                "tasks": [{"name": task, "metric": METRICS[task], "weight": weight} for task, weight in tasks],
                "include_path": str(self._zoo.tasks),
                "documents": self._terms.documents,
                "holdout": HOLDOUT,
            },
            "objective": objective,
        }
        return prepare(parse_study(content), Fingerprinted(None))

    def _search(self, prepared: Prepared, recipes: dict[str, Recipe], draws: int = 0) -> None:
        """One search in a store of its own; what it scores is added to the recipes, by digest.

        Args:
            draws: keys its random draws beside the seed, so that searches of one pool do not repeat each other.
        """

        def evaluate(recipe: Recipe, wanted: Wanted) -> Scored | Infeasible:
            recipes[recipe.digest(self._fingerprints)] = recipe
            return self._outcome(recipe, wanted.part)

        with tempfile.TemporaryDirectory() as home, closing(open_home(Path(home))) as store:
            study, spec, space = create_or_resume(prepared, store), prepared.spec, prepared.space
            dispatcher = InlineDispatcher(store, evaluate)
            drawing = spec.search.model_copy(update={"seed": derive(self._seed, draws)})
            opened = open_search(spec.model_copy(update={"search": drawing}), space, study.setup)
            search = Search(study, spec, 1, space, *opened, lambda told: None)
            controller = Controller(search, store.leads.seize(study.id, "benchmark"), store, dispatcher.announce)
            while not controller.step():
                dispatcher.wait(1.0)

    def _outcome(self, recipe: Recipe, part: Part) -> Scored | Infeasible:
        key = (recipe.digest(self._fingerprints), part)
        if key not in self._outcomes:
            self._outcomes[key] = self._lab.evaluate(recipe, self._lab.suite.wanted(part))
        return self._outcomes[key]

    def _values(self, recipes: Sequence[Recipe], part: Part) -> Floats:
        """[recipes that could be scored, skills]"""
        outcomes = [self._outcome(recipe, part) for recipe in recipes]
        return np.array([[s.value for s in o.scores] for o in outcomes if isinstance(o, Scored)])

    def _found(self, recipes: Sequence[Recipe]) -> Found:
        scored = [r for r in recipes if isinstance(self._outcome(r, "search"), Scored)]
        edge = front(self._values(scored, "search"))
        best = [scored[i] for i in edge]
        volumes = {part: self._volume(self._values(best, part), part) for part in self._ends}
        mean = float(self._values(best, "holdout").mean(axis=1).max())
        return Found(self._each * len(recipes), len(edge), volumes["search"], volumes["holdout"], mean)

    def _volume(self, values: Floats, part: Part) -> float:
        low, high = self._ends[part][0], self._ends[part].max(axis=0)
        return float(hypervolume((values - low) / (high - low), np.zeros(len(SKILLS))))


def weightings(count: int, seed: int) -> list[tuple[float, ...]]:
    """So many weightings of the skills, each adding up to 1: equal ones, half the weight on each skill in turn, then
    uniform draws from the simplex.
    """
    size = len(SKILLS)
    rest = 0.5 / (size - 1)
    fixed = [tuple(0.5 if i == j else rest for i in range(size)) for j in range(size)]
    drawn = np.random.default_rng(seed).dirichlet(np.ones(size), max(0, count - size - 1))
    rows = [tuple(1.0 / size for _ in range(size)), *fixed, *(tuple(float(v) for v in row) for row in drawn)]
    return rows[:count]
