"""Every merge method on the zoo, at its defaults and at the best that the same budget of trials finds.

    python -m benchmarks.methods [--preset tiny] [--trials 30] [--seed 0] [--methods ties,...] [--zoo FOLDER]

Trains the zoo if it is not there, then for each method of the catalog: its default recipe with equal weights, and a
TPE search of so many trials over the whole model (one group), every candidate scored as a study scores it. The table
gives search and holdout scores of both (mean of the skills; the holdout is read once for each row), and the build
times: the first candidate, with selections and decompositions, and the median of the repeated ones. Methods that take
fewer experts than the zoo has get those that score best alone. Markdown, for docs/methods_benchmark.md.
"""

import argparse
import logging
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from evaluation.errors import NonFiniteScore
from evaluation.live import live_tensors, load_live
from evaluation.result import Part
from evaluation.scorer import Scorer
from evaluation.suite import Suite
from merging.catalog import CATALOG, Method
from merging.errors import NonFiniteCandidate
from merging.models import ModelSet
from merging.recipe import Recipe
from merging.resident import ResidentModel
from search.space import make_space
from search.starts.known import default_start
from search.strategies.contract import Observation, Proposal
from search.strategies.sampled import tpe
from search.study import StudySpec, parse_study
from zoo.make import Zoo, build


@dataclass(frozen=True)
class Row:
    """One line of the table: scores of the default and of the best trial, seconds of the builds."""

    method: str
    default: tuple[float, float] | None
    tuned: tuple[float, float]
    trials: int
    first: float
    repeated: float


class Bench:
    """Builds candidates of some experts and scores them."""

    def __init__(self, zoo: Zoo, experts: Sequence[str], suite: Suite) -> None:
        self.models = ModelSet.open(zoo.base, {name: zoo.experts[name] for name in experts})
        live, tokenizer = load_live(zoo.base, "cpu", None)
        self._resident = ResidentModel(self.models, live_tensors(live, self.models.base.names))
        self._suite, self._scorer = suite, Scorer(suite, live, tokenizer, "cpu", 64)
        self.seconds: list[float] = []

    def score(self, recipe: Recipe, part: Part) -> float | None:
        """Mean over the skills, without the text's bits per byte; None for a candidate that is not finite."""
        try:
            self.seconds.append(self._resident.apply(recipe).seconds)
            scores, _ = self._scorer.score(self._suite.wanted(part))
        except (NonFiniteCandidate, NonFiniteScore):
            return None
        return statistics.fmean(score.value for score in scores if score.higher_is_better)


def study_of(zoo: Zoo, experts: Sequence[str], methods: Sequence[str], seed: int, documents: int) -> StudySpec:
    """The study that stands behind a row."""
    content: dict[str, Any] = {
        "schema": "mergesearch/study/v1",
        "name": "methods",
        "models": {"base": str(zoo.base), "experts": [{"path": str(zoo.experts[n]), "name": n} for n in experts]},
        "space": {"methods": list(methods)},
        "search": {"seed": seed},
        "evaluation": {
            "tasks": [{"name": name} for name in zoo.task_names],
            "include_path": str(zoo.tasks),
            "documents": documents,
            "holdout": 0.5,
        },
    }
    return parse_study(content)


def search(bench: Bench, spec: StudySpec, row: Method, trials: int, seed: int) -> Row:
    """The default, then TPE with the default as its start."""
    space = make_space(spec, bench.models.layout.layer_count)
    strategy = tpe(space, seed)
    default = default_start(space, row)
    bench.seconds.clear()
    best: tuple[float, Recipe] | None = None
    of_default: float | None = None
    done = 0
    for number in range(trials):
        if number == 0 and default is not None:
            proposal = Proposal(default.params, default.recipe)
            strategy.reserve(number, proposal)
        else:
            found = strategy.propose(number)
            if not isinstance(found, Proposal):
                break
            proposal = found
        value = bench.score(proposal.recipe, "search") if proposal.recipe else None
        done += 1
        if number == 0 and default is not None:
            of_default = value
        strategy.observe(Observation(number, "", proposal.params, proposal.recipe, value))
        if value is not None and proposal.recipe and (best is None or value > best[0]):
            best = value, proposal.recipe
        if not proposal.params:  # nothing to vary
            break
    if best is None:
        raise SystemExit(f"{row.name}: no candidate could be scored")
    builds = list(bench.seconds)
    tuned = best[0], bench.score(best[1], "holdout") or float("nan")
    at_default = None
    if default is not None and of_default is not None:
        at_default = of_default, bench.score(default.recipe, "holdout") or float("nan")
    repeated = statistics.median(builds[1:]) if len(builds) > 1 else builds[0]
    return Row(row.name, at_default, tuned, done, builds[0], repeated)


def ranked_experts(zoo: Zoo, suite: Suite, names: Sequence[str]) -> list[str]:
    """The experts by their own search score, the best first."""
    bench = Bench(zoo, names, suite)
    spec = study_of(zoo, names, ["task_arithmetic"], 0, 8)
    space = make_space(spec, bench.models.layout.layer_count)
    scores = {}
    for name in names:
        recipe = space.uniform("linear", {other: float(other == name) for other in names}, {})
        scores[name] = bench.score(recipe, "search") or 0.0
        print(f"| expert `{name}` alone | | | {scores[name]:.3f} | {bench.score(recipe, 'holdout') or 0:.3f} | | | |")
    return sorted(names, key=lambda name: -scores[name])


def rows(zoo: Zoo, suite: Suite, methods: Sequence[str], settings: argparse.Namespace) -> Iterator[Row]:
    """The rows, one by one."""
    ranking = ranked_experts(zoo, suite, sorted(zoo.experts))
    for name in methods:
        row = CATALOG[name]
        experts = sorted(ranking[: row.experts[1]])
        spec = study_of(zoo, experts, [name], settings.seed, settings.documents)
        yield search(Bench(zoo, experts, suite), spec, row, settings.trials, settings.seed)


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description="Every merge method on the zoo.")
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--documents", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--methods", default=",".join(CATALOG))
    parser.add_argument("--zoo", type=Path)
    settings = parser.parse_args()
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        zoo = build(settings.zoo or Path(folder), preset=settings.preset)
        spec = study_of(zoo, sorted(zoo.experts), ["linear"], settings.seed, settings.documents)
        suite = Suite.load(spec.evaluation, Path("/"), "methods")
        print(f"{settings.preset} zoo, {settings.trials} trials, {torch.get_num_threads()} threads\n")
        print("| method | default: search | holdout | tuned: search | holdout | trials | first build ms | next ms |")
        print("|---|---|---|---|---|---|---|---|")
        begin = time.perf_counter()
        for row in rows(zoo, suite, settings.methods.split(","), settings):
            default = [f"{value:.3f}" for value in row.default] if row.default else ["", ""]
            cells = [*default, *(f"{value:.3f}" for value in row.tuned), str(row.trials)]
            times = [f"{row.first * 1e3:.1f}", f"{row.repeated * 1e3:.1f}"]
            print(f"| `{row.method}` | {' | '.join([*cells, *times])} |", flush=True)
        print(f"\n{time.perf_counter() - begin:.0f} s")


if __name__ == "__main__":
    main()
