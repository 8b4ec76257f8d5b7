"""Fronts of four objectives on the zoo: how much of the space between base and experts they dominate.

    python -m benchmarks.fronts [--seeds 3] [--first 0] [--trials 100] [--documents 160] [--layers 4] [--preset tiny]
                                [--zoo FOLDER] [--searches gp,nsga2,5xcmaes]

Every entrant scores as many recipes on all search documents: searches of `objective: pareto` follow the four skills at
once; `KxNAME` are K searches of one weighting of the skills each (all alike, half the weight on one skill, then draws
from the simplex), which share the budget, pay for their starts once, and pool what they scored. The front is that of
all that an entrant scored, by the search documents; its hypervolume, on the search documents and on the holdout, is
what it dominates above the base's scores, in units of the box up to the best expert of each skill. Means over the seeds
with 95 % intervals by Student's t; differences are paired by seed.
"""

import argparse
import logging
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from benchmarks.evaluation import show
from benchmarks.fronts_lab import Bench, Entrant, Found, Terms
from benchmarks.racing_lab import interval
from zoo.make import build

ENTRANTS = "gp,5xcmaes,10xcmaes,5xtpe,5xgp,nsga2,tpe,random"
Runs = Mapping[tuple[Entrant, int], Found]


def entrant_of(text: str) -> Entrant:
    """`gp`, or `5xgp`: five weighted sums."""
    count, times, name = text.partition("x")
    return Entrant(name, int(count)) if times and count.isdigit() else Entrant(text)


def table(runs: Runs, entrants: Sequence[Entrant], seeds: Sequence[int]) -> list[list[str]]:
    """A line an entrant, with differences to the weighted sums whose front dominates most of the holdout."""
    sums = [e for e in entrants if e.sums]
    volumes = {e: statistics.fmean(runs[e, seed].holdout for seed in seeds) for e in sums}
    bar = max(sums, key=lambda e: volumes[e], default=None)
    return [row(entrant, bar, runs, seeds) for entrant in entrants]


def row(entrant: Entrant, bar: Entrant | None, runs: Runs, seeds: Sequence[int]) -> list[str]:
    """One line of the table."""
    own = [runs[entrant, seed] for seed in seeds]
    minus = ["", ""]
    if bar is not None and entrant != bar:
        theirs = [runs[bar, seed] for seed in seeds]
        pairs = list(zip(own, theirs, strict=True))
        minus = [
            spread([a.search - b.search for a, b in pairs], "{:+.3f}"),
            spread([a.holdout - b.holdout for a, b in pairs], "{:+.3f}"),
        ]
    return [
        entrant.name,
        f"{statistics.fmean(run.documents for run in own):.0f}",
        f"{statistics.fmean(run.size for run in own):.0f}",
        spread([run.search for run in own]),
        minus[0],
        spread([run.holdout for run in own]),
        minus[1],
        f"{statistics.fmean(run.best for run in own):.3f}",
    ]


def spread(values: Sequence[float], form: str = "{:.3f}") -> str:
    """The mean and its interval."""
    mean, low, high = (form.format(number) for number in interval(values))
    return f"{mean} ({low} – {high})" if len(values) > 1 else mean


def main(argv: Sequence[str]) -> None:
    """Run all entrants with all seeds, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--documents", type=int, default=160, help="of each task, half of them held out")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--zoo", type=Path, help="an existing zoo; made anew in a temporary folder without")
    parser.add_argument("--searches", default=ENTRANTS)
    asked = parser.parse_args(argv)
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    terms = Terms(asked.trials, asked.documents, asked.layers)
    entrants = [entrant_of(text) for text in asked.searches.split(",")]
    with tempfile.TemporaryDirectory() as folder:
        zoo = build(asked.zoo or Path(folder), asked.preset)
        runs: dict[tuple[Entrant, int], Found] = {}
        seeds = range(asked.first, asked.first + asked.seeds)
        for seed in seeds:
            bench = Bench(zoo, seed, terms)
            for entrant in entrants:
                runs[entrant, seed] = bench.run(entrant)
                print(seed, entrant.name, runs[entrant, seed], file=sys.stderr, flush=True)
    columns = ["search", "documents", "front", "search volume", "minus best sums", "holdout volume", "minus best sums"]
    title = f"{asked.seeds} seeds, {terms.trials} recipes each, {terms.layers} groups, zoo {zoo.preset}"
    show(title, [*columns, "best mean"], table(runs, entrants, seeds))


if __name__ == "__main__":
    main(sys.argv[1:])
