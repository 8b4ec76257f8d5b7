"""Racing on candidates that were all scored in full once: cheap, so that many seeds show what is rare.

A *table* is the experts, the uniform soup and random recipes of the zoo with their items on all documents, kept as
npz. Each seed deals the candidates in another order, splits off other documents as the search documents, and orders
them anew; the racing policies are the real ones, the finalists are chosen as a study chooses them. What a replay
lacks is that a strategy learns from the trials: every policy meets the same candidates.
"""

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.racing_lab import SKILLS, Lab, Plan, study_of
from evaluation.result import Scored, TaskScore
from evaluation.statistics import Aggregation, Measure, closed_aggregation, p_worse, restricted
from evaluation.wanted import Wanted
from merging.catalog import Scalar
from search.opening import open_search
from search.racing.choose import make_racer
from search.racing.contract import Contender, Incumbent, Past, Promote, Racer
from search.racing.rungs import plan_rungs, plan_sizes
from search.rescoring import COULD_WIN, LOOKED_AT, how_many
from search.seeds import derive
from search.space import make_space
from search.strategies.contract import Proposal
from search.study import StudySpec
from zoo.make import Zoo

SEARCHED = 0.7  # share of the documents
Documents = Mapping[str, tuple[int, ...]]
_MEASURE = Measure("mean", dict.fromkeys(SKILLS, 1.0), {task: closed_aggregation("mean") for task in SKILLS})
_AGGREGATIONS: Mapping[str, Aggregation] = _MEASURE.aggregations


@dataclass(frozen=True)
class Table:
    """Items of candidates.

    Attributes:
        items: by task, [candidates, documents].
        baselines: how many of the candidates, the first ones, are baselines.
        params: what the candidates are made of, one a candidate; empty: not known.
        shuffled: whether a seed deals the candidates in another order; else they keep theirs.
    """

    items: Mapping[str, np.ndarray]
    baselines: int
    params: tuple[Mapping[str, Scalar] | None, ...] = ()
    shuffled: bool = True

    @property
    def candidates(self) -> int:
        """How many there are."""
        return len(next(iter(self.items.values())))

    def scores(self, candidate: int, documents: Documents) -> tuple[TaskScore, ...]:
        """What a worker would have found on these documents."""
        return tuple(self._score(task, candidate, documents[task]) for task in self.items)

    def value(self, candidate: int, documents: Documents) -> float:
        """The objective on these documents."""
        return statistics.fmean(float(found[candidate, documents[task]].mean()) for task, found in self.items.items())

    def _score(self, task: str, candidate: int, documents: tuple[int, ...]) -> TaskScore:
        items = tuple(self.items[task][candidate, list(documents)].tolist())
        value = statistics.fmean(items)
        return TaskScore(
            task=task, metric="", value=value, stderr=None, higher_is_better=True, documents=documents, items=items
        )


def make_table(zoo: Zoo, lab: Lab, candidates: int, folder: Path, layers: int) -> Table:
    """The table in the folder, or a new one written there; random recipes of a fixed seed.

    Args:
        lab: with a suite of the zoo's skills, whatever its split.
        layers: of the zoo's models.
    """
    file = folder / f"racing-{zoo.preset}-{zoo.seed}-{candidates}.npz"
    if file.exists():
        kept = np.load(file)
        made_of = tuple(weights_of(json.loads(text)) for text in json.loads(str(kept["recipes"])))
        return Table({task: kept[task] for task in SKILLS}, int(kept["baselines"]), made_of)
    spec = study_of(zoo, "off", 0, Plan(candidates))
    spec = spec.model_copy(update={"search": spec.search.model_copy(update={"strategy": "random"})})
    starts, strategy = open_search(spec, make_space(spec, layers))
    every = Wanted("search", {task.name: tuple(range(len(task.documents))) for task in lab.suite.tasks}, {})
    recipes = [start.recipe for start in starts]
    for number in range(len(starts), candidates):
        proposal = strategy.propose(number)
        assert isinstance(proposal, Proposal) and proposal.recipe is not None
        recipes.append(proposal.recipe)
    found: dict[str, list[list[float]]] = {task: [] for task in SKILLS}
    for recipe in recipes:
        outcome = lab.evaluate(recipe, every)
        assert isinstance(outcome, Scored), f"every recipe of the table can be scored: {outcome}"
        for score in outcome.scores:
            found[score.task].append([float(item) for item in score.items])
    baselines = len([s for s in starts if s.origin == "uniform_soup" or s.origin.startswith("expert:")])
    items = {task: np.array(rows) for task, rows in found.items()}
    folder.mkdir(parents=True, exist_ok=True)
    described = json.dumps([recipe.to_json() for recipe in recipes])
    np.savez_compressed(file, baselines=np.array(baselines), recipes=np.array(described), **items)  # type: ignore[arg-type]
    return Table(items, baselines, tuple(weights_of(json.loads(recipe.to_json())) for recipe in recipes))


def weights_of(recipe: Mapping[str, Any]) -> dict[str, Scalar]:
    """Every group's weights."""
    groups = enumerate(recipe["groups"])
    return {f"{i}.{name}": weight for i, group in groups for name, weight in group["weights"].items()}


@dataclass
class Replay:
    """One seed and one policy: the racing policies' `Field`.

    Attributes:
        order: the candidates as trials, by number; the baselines first.
        rungs: of each rung the documents.
        older: candidates of an earlier study over the same documents; None: there was none.
    """

    table: Table
    order: list[int]
    rungs: Sequence[Documents]
    older: Table | None = None
    measure: Measure = _MEASURE
    complete: dict[int, float] = field(default_factory=dict)
    values: dict[int, dict[int, float]] = field(default_factory=dict)  # by rung, by number
    stopped: dict[int, tuple[float, int, float | None]] = field(default_factory=dict)  # estimate, rung, incumbent
    documents: int = 0

    @property
    def incumbent(self) -> Incumbent | None:
        """The best complete trial."""
        if not self.complete:
            return None
        number = min(self.complete, key=lambda n: (-self.complete[n], n))
        return Incumbent(number, self.complete[number], self.table.scores(self.order[number], self.rungs[-1]))

    def seen(self, rung: int) -> Mapping[int, float]:
        """Values on that rung's documents."""
        return self.values.get(rung, {})

    def past(self, rung: int) -> Past:
        """The complete trials on that rung's documents."""
        numbers, documents = tuple(sorted(self.complete)), self.rungs[rung]
        own = [self.order[number] for number in numbers]
        columns = [found[own][:, list(documents[task])] for task, found in self.table.items.items()]
        return Past(
            numbers=numbers,
            values=np.array([self.complete[number] for number in numbers]),
            on_rung=np.array([self.values[rung][number] for number in numbers]),
            items=np.concatenate(columns, axis=1),
            params=tuple(self.params(number) for number in numbers),
            documents=documents,
        )

    def predecessors(self, rung: int) -> Past | None:
        """The older study's candidates on that rung's documents."""
        if self.older is None:
            return None
        every, documents = range(self.older.candidates), self.rungs[rung]
        columns = [found[:, list(documents[task])] for task, found in self.older.items.items()]
        return Past(
            numbers=(),
            values=np.array([self.older.value(candidate, self.rungs[-1]) for candidate in every]),
            on_rung=np.array([self.older.value(candidate, documents) for candidate in every]),
            items=np.concatenate(columns, axis=1),
            params=(None,) * len(every),
            documents=documents,
        )

    def params(self, number: int) -> Mapping[str, Scalar] | None:
        """What a trial is made of, where that is known."""
        return self.table.params[self.order[number]] if self.table.params else None

    def finish(self, number: int) -> float:
        """Score a trial in full."""
        for rung in range(len(self.rungs) - 1):
            self.note(number, rung)
        self.complete[number] = self.table.value(self.order[number], self.rungs[-1])
        return self.complete[number]

    def note(self, number: int, rung: int) -> float:
        """A trial's value on a rung."""
        value = self.table.value(self.order[number], self.rungs[rung])
        return self.values.setdefault(rung, {}).setdefault(number, value)

    def stop(self, number: int, rung: int, value: float, estimate: float | None) -> None:
        """A trial is stopped: what it may be worth, as the policy or else `Standings.estimate` says."""
        best = self.incumbent
        if estimate is None:
            there = None if best is None else self.table.value(self.order[best.number], self.rungs[rung])
            estimate = value if best is None or there is None else best.value + value - there
        self.stopped[number] = (estimate, rung, None if best is None else best.value)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one replay came to.

    Attributes:
        share: documents scored, of all candidates' search documents.
        regret: the truly best candidate's search score minus the winner's.
        holdout: the winner's score on the other documents.
        best: whether the winner is the truly best.
        wrong, right: trials that were better than the incumbent of their time, stopped and not stopped.
        stopped: trials stopped and not scored in full in the end.
    """

    share: float
    regret: float
    holdout: float
    best: bool
    wrong: int
    right: int
    stopped: int


def replay(table: Table, spec: StudySpec, older: Table | None = None) -> Outcome:
    """Race the candidates of a table, as a study of so many trials with that policy and seed would.

    Args:
        older: candidates of an earlier study over the same documents.
    """
    policy, seed = spec.racing, spec.search.seed
    rng = np.random.default_rng(seed)
    searched, held = _split(table, rng)
    dealt = rng.permutation(table.candidates - table.baselines) if table.shuffled else np.arange(table.candidates)
    order = [*range(table.baselines), *(table.baselines + dealt[: table.candidates - table.baselines]).tolist()]
    counts = {task: len(found) for task, found in searched.items()}
    totals = plan_rungs(policy, sum(counts.values()), len(counts))
    sizes = plan_sizes(counts, list(counts), totals)
    rungs = [{task: tuple(sorted(ids[: sizes[task][r]])) for task, ids in searched.items()} for r in range(len(totals))]
    state = Replay(table, order, rungs, older)
    racer = make_racer(policy, len(rungs), seed, lambda number: number >= table.baselines)
    right = 0
    for number in range(table.candidates):
        rung = len(rungs) - 1 if number < table.baselines else racer.entry(number)
        found = _race(state, number, rung, racer)
        right += found and number >= table.baselines
    state.documents = len(state.complete) * _count(rungs[-1])
    state.documents += sum(_count(rungs[rung]) for _, rung, _ in state.stopped.values())
    full = [table.value(candidate, rungs[-1]) for candidate in order]
    wrong = sum(best is not None and full[number] > best for number, (_, _, best) in state.stopped.items())
    _rescore(state, spec)
    winner = min(state.complete, key=lambda n: (-state.complete[n], n))
    return Outcome(
        share=state.documents / (table.candidates * _count(rungs[-1])),
        regret=max(full) - full[winner],
        holdout=table.value(order[winner], held),
        best=full[winner] == max(full),
        wrong=wrong,
        right=right,
        stopped=len(state.stopped),
    )


def _split(table: Table, rng: np.random.Generator) -> tuple[dict[str, list[int]], Documents]:
    """Search documents in scoring order, and the others."""
    searched, held = {}, {}
    for task, items in table.items.items():
        drawn = rng.permutation(items.shape[1]).tolist()
        cut = round(SEARCHED * len(drawn))
        searched[task], held[task] = drawn[:cut], tuple(sorted(drawn[cut:]))
    return searched, held


def _count(documents: Documents) -> int:
    return sum(map(len, documents.values()))


def _race(state: Replay, number: int, rung: int, racer: Racer) -> bool:
    """Take one trial to its end; whether it was completed and is better than all before it."""
    last = len(state.rungs) - 1
    while rung < last:
        value = state.table.value(state.order[number], state.rungs[rung])
        scores = state.table.scores(state.order[number], state.rungs[rung])
        decision = racer.decide(Contender(number, rung, value, scores, state.params(number)), state)
        state.note(number, rung)
        if not isinstance(decision, Promote):
            state.stop(number, rung, value, decision.estimate)
            return False
        rung = decision.rung
    before = max(state.complete.values(), default=None)
    value = state.finish(number)
    return before is not None and value > before


def _rescore(state: Replay, spec: StudySpec) -> None:
    """Score in full who could still win, as `search/rescoring.py` chooses them."""
    most = how_many(spec, state.table.candidates)
    best = state.incumbent
    chosen: list[int] = []
    for number in sorted(state.stopped, key=lambda n: (-state.stopped[n][0], n))[: LOOKED_AT * most]:
        if len(chosen) == most:
            break
        rung = state.stopped[number][1]
        if best is not None:
            ours = state.table.scores(state.order[number], state.rungs[rung])
            theirs = restricted(best.scores, {s.task: s.documents for s in ours}, _AGGREGATIONS)
            if (
                p_worse(_MEASURE, ours, theirs, seed=derive(spec.search.seed, "rescore", number, best.number))
                < COULD_WIN
            ):
                continue
        chosen.append(number)
    for number in chosen:
        _, rung, _ = state.stopped.pop(number)
        state.documents += _count(state.rungs[-1]) - _count(state.rungs[rung])
        state.finish(number)
