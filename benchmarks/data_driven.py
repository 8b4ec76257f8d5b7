"""Methods that look at data beside those that do not, on the zoo: at their defaults, and as a start for a search.

    python -m benchmarks.data_driven [--seeds 5] [--trials 50] [--methods regmean,...] [--preset tiny] [--zoo FOLDER]
                                     [--jobs 2] [--layers 1] [--no-polish]

A seed is that of the split into search and holdout documents and of the sampler. For each seed: the uniform soup, the
best of task arithmetic with one weight for all experts (ten of them, chosen on the search documents), every method's
default recipe, and for each method a TPE study of so many trials that begins with that default, its losers stopped by
halving, as a user's study would be. Shown are means over the seeds with 95 % intervals by Student's t, the difference
to the uniform soup on the same holdout documents, and what measuring took before the first candidate. Markdown.
"""

import argparse
import logging
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from api.prepared import load_suite
from benchmarks.evaluation import show
from benchmarks.racing import spread
from benchmarks.racing_lab import Lab, Plan, mean_of, run_study, study_of
from evaluation.result import Part, Scored
from merging.artefacts.place import VARIABLE
from merging.catalog import CATALOG
from merging.recipe import Recipe
from search.space import Space, make_space
from search.starts.known import default_start
from zoo.make import Zoo, build

UNIFORM, SINGLE = "uniform soup", "task_arithmetic, best single λ"
METHODS = ("fisher", "regmean", "regmean_pp", "pleas_pp", "learned_soup", "adamerging", "adaptive_averaging")
BLIND = ("task_arithmetic", "wudi")  # what the same search finds without looking at data
LAMBDAS = tuple(step / 10 for step in range(1, 11))


@dataclass(frozen=True, slots=True)
class Result:
    """One row with one seed: scores on search documents and holdout, and seconds of measuring."""

    search: float
    holdout: float
    measuring: float = 0.0


Found = dict[tuple[str, str], Result]  # by row, and `default` or `polished`


def run_seed(zoo: Zoo, settings: argparse.Namespace, seed: int) -> Found:
    """Every row with one seed, in turn, in a process of its own, on one thread."""
    import torch

    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        os.environ[VARIABLE] = folder  # measured anew for each seed: the split is another
        found = _defaults(zoo, settings.methods, seed)
        for name in (*BLIND, *settings.methods) if settings.polish else ():
            plan = Plan(settings.trials, layers=settings.layers, methods=(name,))
            run = run_study(zoo, "halving", seed, plan, 0)
            found[name, "polished"] = Result(run.search, run.holdout)
            print(f"seed {seed}: {name} {run.search:.3f} {run.holdout:.3f}", file=sys.stderr, flush=True)
    return found


def _defaults(zoo: Zoo, methods: Sequence[str], seed: int) -> Found:
    spec = study_of(zoo, "off", seed, Plan(1, methods=(*BLIND, *methods)))
    lab = Lab(zoo, load_suite(spec))
    space = make_space(spec, lab.models.layout.layer_count, lab.suite.tuning_digest)
    names = tuple(space.experts)
    found = {(UNIFORM, "default"): _scored(lab, space.uniform("linear", dict.fromkeys(names, 1 / len(names)), {}))}
    single = [_single(space, value) for value in LAMBDAS]
    best = max(single, key=lambda recipe: _score(lab, recipe, "search"))
    found[SINGLE, "default"] = _scored(lab, best)
    for name in (*BLIND[1:], *methods):
        start = default_start(space, CATALOG[name])
        assert start is not None, "its default is one recipe"
        found[name, "default"] = _scored(lab, start.recipe)
    return found


def _single(space: Space, value: float) -> Recipe:
    return space.uniform("task_arithmetic", dict.fromkeys(space.experts, value), {})


def _scored(lab: Lab, recipe: Recipe) -> Result:
    began = time.perf_counter()
    lab.measure(recipe)
    measuring = time.perf_counter() - began
    return Result(_score(lab, recipe, "search"), _score(lab, recipe, "holdout"), measuring)


def _score(lab: Lab, recipe: Recipe, part: Part) -> float:
    outcome = lab.evaluate(recipe, lab.suite.wanted(part))
    assert isinstance(outcome, Scored), "defaults are finite"
    return mean_of(outcome.scores)


def table(found: Sequence[Found]) -> list[list[str]]:
    """A line a row."""
    rows = list(dict.fromkeys(name for results in found for name, _ in results))
    return [_line(name, found) for name in rows]


def _line(name: str, found: Sequence[Found]) -> list[str]:
    cells = [name]
    for kind in ("default", "polished"):
        own = [results[name, kind] for results in found if (name, kind) in results]
        soup = [results[UNIFORM, "default"] for results in found]
        minus = [mine.holdout - other.holdout for mine, other in zip(own, soup, strict=False)] if own else []
        cells += [
            spread([each.search for each in own]),
            spread([each.holdout for each in own]),
            "" if name == UNIFORM else spread(minus, "{:+.3f}"),
        ]
    seconds = _seconds(name, found)
    return [*cells, seconds]


def _seconds(name: str, found: Sequence[Found]) -> str:
    taken = [results[name, "default"].measuring for results in found if (name, "default") in results]
    return f"{sum(taken) / len(taken):.1f}" if taken and name in CATALOG and CATALOG[name].artefacts else ""


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description="Methods that look at data, on the zoo.")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--methods", type=lambda text: tuple(text.split(",")), default=METHODS)
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--layers", type=int, default=1)
    parser.add_argument("--zoo", type=Path)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--no-polish", dest="polish", action="store_false")
    settings = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        zoo = build(settings.zoo or Path(folder), preset=settings.preset)
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(settings.jobs, mp_context=context) as pool:
            found = list(pool.map(partial(run_seed, zoo, settings), range(settings.seeds)))
    print(f"{settings.preset} zoo, {settings.seeds} seeds, {settings.trials} trials\n")
    header = ["method", "search", "holdout", "minus soup"]
    polished = [f"polished: {name}" for name in header[1:]]
    show("", [*header, *polished, "measuring, s"], table(found))


if __name__ == "__main__":
    main()
