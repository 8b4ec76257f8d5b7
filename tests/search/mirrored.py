"""Studies with trials already told, made without a search, for tests of the dashboard's copy."""

import random
from collections.abc import Iterator

from db.records import Lead, Study
from db.store import Store
from db.trials import NewTrial
from evaluation.result import Infeasible
from merging.catalog import Scalar
from search.space import Dimension, Space, dimensions, make_space
from search.starts.pool import starts
from search.study import StudySpec
from tests.search.factories import LAYERS, create, fingerprints, scored


def point(space: Space, draw: random.Random) -> dict[str, Scalar]:
    """A random point of the space."""

    def pick(dimension: Dimension) -> Scalar:
        if dimension.kind == "bool":
            return draw.random() < 0.5
        if dimension.kind == "choice":
            return draw.choice(dimension.choices)
        if dimension.kind == "int":
            return draw.randint(int(dimension.low), int(dimension.high))
        return draw.uniform(dimension.low, dimension.high)

    params: dict[str, Scalar] = {}

    def note(dimension: Dimension) -> Scalar:
        params[dimension.name] = pick(dimension)
        return params[dimension.name]

    dimensions(space, note)
    return params


class Filled:
    """A study whose trials are added and told by hand."""

    def __init__(self, store: Store, spec: StudySpec, layers: int = LAYERS, seed: int = 0) -> None:
        self.store, self.spec = store, spec
        self.study: Study = create(store, spec)
        self.space = make_space(spec, layers)
        self._draw = random.Random(seed)
        self._next = 0
        self._lead: Lead = store.leads.seize(self.study.id, "test")

    def add(self, count: int) -> list[int]:
        """Add open trials: the starts first (some lie outside the space), then random points; their numbers."""
        begin = starts(self.space)
        numbers = []
        for _ in range(count):
            number, self._next = self._next, self._next + 1
            if number < len(begin):
                origin, params, recipe = begin[number].origin, begin[number].params, begin[number].recipe
            else:
                origin, params = "random", point(self.space, self._draw)
                recipe = self.space.decode(params)
            digest = recipe.digest(fingerprints(self.spec))
            self.store.trials.add(self._lead, NewTrial(number, origin, params, recipe, digest))
            numbers.append(number)
        return numbers

    def without_recipe(self) -> int:
        """A told trial whose parameters make no recipe."""
        number, self._next = self._next, self._next + 1
        self.store.trials.add(
            self._lead, NewTrial(number, "random", point(self.space, self._draw), None, None, "all zero")
        )
        self.store.trials.tell(self._lead, number, "infeasible", None, "all weights are zero")
        return number

    def tell(self, number: int, value: float | None) -> None:
        """Score an open trial (None: it came out infeasible) and tell it."""
        trial = self.store.trials.get(self.study.id, number)
        assert trial is not None and trial.evaluation_id is not None
        lease = self.store.evaluations.claim(trial.evaluation_id, "worker", 60.0)
        if lease is not None:
            outcome = Infeasible(why="not finite") if value is None else scored(value)
            assert self.store.evaluations.finish(lease, outcome)
        state = "infeasible" if value is None else "complete"
        self.store.trials.tell(self._lead, number, state, value, "not finite" if value is None else None)

    def fill(self, count: int) -> None:
        """Add and tell trials; every seventh is infeasible."""
        for number in self.add(count):
            self.tell(number, None if number % 7 == 6 else self._draw.random())

    def ours(self) -> Iterator[tuple[int, float | None]]:
        """Number and value of every told trial."""
        yield from ((t.number, t.value) for t in self.store.trials.all(self.study.id) if t.state != "open")
