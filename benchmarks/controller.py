"""What choosing the next candidate costs the controller, as trials pile up.

    python -m benchmarks.controller [STRATEGY ...] [--trials 100,1000,10000] [--proposals 9] [--limit 120] [--per-group]

A space of one method with 4 experts and 32 layers: 128 coefficients. With `--per-group` each of 32 groups chooses one
of three methods, each with parameters of its own: about 190 numbers and choices. Random recipes of it, with random
values and scores on random documents, are replayed to a fresh strategy, as after a restart of the controller; then it
proposes, and each proposal is told with a random value before the next. Shown is the median processor time of a
proposal in milliseconds, with that of taking in a told trial behind the slash. Without names: every strategy there is.
`-`: it refuses this space. `end`: it has nothing left to propose. A number of trials is left out, and shown as `…`,
where a strategy would take longer than the limit (in seconds), were its time in proportion to the number of trials.
Markdown.
"""

import argparse
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from evaluation.result import TaskScore
from merging.catalog import Scalar
from merging.errors import InvalidStudy
from search.seeds import derive
from search.space import Dimension, Space, make_space
from search.starts.pool import starts
from search.strategies.choose import make_strategy
from search.strategies.contract import Observation, Proposal, Strategy
from search.strategies.declared import STRATEGIES, options_of
from search.strategies.near import uniform
from search.strategies.opening import Opening
from search.study import parse_study

EXPERTS, LAYERS, DOCUMENTS = 4, 32, 256
SPACE = {"methods": ["task_arithmetic"], "layers": "each"}
PER_GROUP = {"methods": ["task_arithmetic", "ties", "dare_ties"], "layers": "each", "choose": "per_group"}


@dataclass(frozen=True)
class Cost:
    """Median seconds of a proposal, and of a trial that is told; None: it has nothing to propose."""

    propose: float | None
    observe: float


def make_opening(name: str, trials: int, section: Mapping[str, object]) -> Opening:
    """A study of that many trials, as a strategy sees it before anything was tried.

    Args:
        section: its `space`.

    Raises:
        InvalidStudy: the strategy cannot search the space.
    """
    content = {
        "schema": "mergesearch/study/v1",
        "name": "controller",
        "models": {"base": "base", "experts": [f"experts/{i}" for i in range(EXPERTS)]},
        "space": dict(section),
        "search": {"strategy": name, "trials": trials},
        "evaluation": {"tasks": [{"name": "t"}]},
    }
    space = make_space(parse_study(content), LAYERS)
    return Opening(space, 0, starts(space), trials, 1, options_of(name, {}))


def observation(space: Space, number: int, proposal: Proposal, origin: str) -> Observation:
    """A random outcome of a proposal: one task, every document right or wrong."""
    draw = np.random.default_rng(derive("outcome", number))
    items = tuple(map(float, draw.random(DOCUMENTS) < draw.random()))
    value = sum(items) / DOCUMENTS
    score = TaskScore(
        task="t",
        metric="acc",
        value=value,
        stderr=None,
        higher_is_better=True,
        documents=tuple(range(DOCUMENTS)),
        items=items,
    )
    known = (number, origin, proposal.params, proposal.recipe)
    return Observation(*known, None if proposal.recipe is None else value, scores=lambda: (score,))


def random_proposal(space: Space, number: int) -> Proposal:
    """A uniform draw from the space."""
    draw, params = np.random.default_rng(derive("recipe", number)), dict[str, Scalar]()

    def pick(dimension: Dimension) -> Scalar:
        params[dimension.name] = uniform(dimension, draw)
        return params[dimension.name]

    return Proposal(params, space.walk(pick))


def replay(strategy: Strategy, opening: Opening, proposals: Sequence[Proposal]) -> float:
    """Bring a fresh strategy to where all starts and proposals are told; the median seconds of telling one."""
    begun = [Proposal(start.params, start.recipe) for start in opening.starts]
    trials = [*begun, *proposals[: max(len(proposals) - len(begun), 0)]]
    origins = [start.origin for start in opening.starts] + ["x"] * len(trials)
    for number, proposal in enumerate(trials):
        strategy.reserve(number, proposal)
    seconds = []
    for number, proposal in enumerate(trials):
        seen = observation(opening.space, number, proposal, origins[number])
        began = time.process_time()
        strategy.observe(seen)
        seconds.append(time.process_time() - began)
    return statistics.median(seconds)


def measure(name: str, section: Mapping[str, object], proposals: Sequence[Proposal], count: int) -> Cost:
    """What a strategy takes after so many trials of a study with that `space`.

    Raises:
        InvalidStudy: it cannot search the space.
    """
    opening = make_opening(name, 2 * len(proposals) + count, section)
    strategy = make_strategy(name, opening)
    telling, seconds = replay(strategy, opening, proposals), []
    for number in range(len(proposals), len(proposals) + count):
        began = time.process_time()
        found = strategy.propose(number)
        seconds.append(time.process_time() - began)
        if not isinstance(found, Proposal):
            return Cost(None, telling)
        strategy.observe(observation(opening.space, number, found, "x"))
    return Cost(statistics.median(seconds), telling)


def row_of(name: str, proposals: Sequence[Proposal], settings: argparse.Namespace) -> list[str]:
    """A strategy's line of the table."""
    cells, expected = [], 0.0
    for trials, more in zip(settings.trials, [*settings.trials[1:], 0], strict=True):
        if expected > settings.limit:
            cells.append("…")
            continue
        began = time.process_time()
        try:
            found = measure(name, settings.space, proposals[:trials], settings.proposals)
        except InvalidStudy:
            return [name, *["-"] * len(settings.trials)]
        expected = (time.process_time() - began) * more / trials
        told = f"{1e3 * found.observe:.2f}"
        cells.append(f"{'end' if found.propose is None else f'{1e3 * found.propose:.1f}'} / {told}")
    return [name, *cells]


def main() -> None:
    """Print the table, each row as soon as it is measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("strategies", nargs="*", default=[n for n, row in STRATEGIES.items() if row.alone])
    parser.add_argument("--trials", type=lambda text: [int(n) for n in text.split(",")], default=[100, 1000, 10000])
    parser.add_argument("--proposals", type=int, default=9)
    parser.add_argument("--limit", type=float, default=120.0)
    parser.add_argument("--per-group", dest="space", action="store_const", const=PER_GROUP, default=SPACE)
    settings = parser.parse_args()
    space = make_opening("random", max(settings.trials), settings.space).space
    proposals = [random_proposal(space, number) for number in range(max(settings.trials))]
    _print_row(["ms per proposal / per told trial", *(f"{n:,} trials" for n in settings.trials)])
    _print_row(["---", *["---:"] * len(settings.trials)])
    for name in settings.strategies:
        _print_row(row_of(name, proposals, settings))


def _print_row(cells: Sequence[str]) -> None:
    print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
