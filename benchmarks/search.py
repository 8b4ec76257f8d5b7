"""Our strategies and the searches that people run today, side by side on zoos: what is found for how many documents.

    python -m benchmarks.search --zoos FOLDER... --out FOLDER [--seeds 10] [--budget 100] [--jobs 2]
                                [--strategies auto,tpe,...] [--rivals known,mergekit_evolve:ties,...]
    python -m benchmarks.search --out FOLDER --report [--figure docs/figures/search.svg]

A seed is that of the split and of the search. The budget is in full evaluations: everybody may look at as many search
documents as so many recipes scored on all of them have; how documents are counted says `search_lab`. What a search
recommends once a share of them is spent is scored on the holdout, afterwards. Each search on each zoo with each seed
adds a line to OUT/results.jsonl; what is there already is skipped, so a run that was stopped goes on when it is started
again, and `--report` makes tables and the figure of what is there. Rivals need the group `benchmarks`
(`pip install --group benchmarks -c constraints.txt`, of pip 25.1 or newer). `none` runs none of ours or none of theirs.
"""

import argparse
import logging
import multiprocessing
import sys
import traceback
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from benchmarks.search_entrants import RIVALS, entrant, ours
from benchmarks.search_figure import draw
from benchmarks.search_report import tables
from benchmarks.search_run import Terms, append, models_of, read_lines, run_search
from zoo.make import open_zoo

RESULTS = "results.jsonl"
Task = tuple[Path, str, int]


def run_task(terms: Terms, out: Path, task: Task) -> bool:
    """One search on one zoo with one seed, on one thread; its line is added to the results. Whether it was run."""
    import torch

    torch.set_num_threads(1)
    _quiet()
    folder, name, seed = task
    who = f"{folder.name}: {name}, seed {seed}"
    try:
        line = run_search(folder.name, open_zoo(folder), name, seed, terms, out)
    except Exception:  # hours of others' results do not end for it
        print(f"{who}: failed\n{traceback.format_exc()}", file=sys.stderr, flush=True)
        return False
    append(out / RESULTS, line)
    found = "nothing" if line.curve[-1].holdout is None else f"{line.curve[-1].holdout:.3f} on the holdout"
    print(f"{who}: {found}, {line.spent} documents, {line.seconds:.0f} s", file=sys.stderr, flush=True)
    return True


def tasks_of(zoos: Sequence[Path], names: Sequence[str], seeds: Sequence[int]) -> list[Task]:
    """What is to be run, seed after seed, so that a run that is stopped has the same seeds of all."""
    return [(folder, name, seed) for seed in seeds for folder in zoos for name in names]


def _quiet() -> None:
    from evaluation.quiet import quiet_libraries

    quiet_libraries()
    logging.disable(logging.WARNING)


def _names(text: str) -> list[str]:
    """Names divided by commas."""
    return [] if text == "none" else text.split(",")


def _parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Our strategies and others' searches on zoos.")
    parser.add_argument("--zoos", type=lambda text: Path(text).absolute(), nargs="*", default=[])
    parser.add_argument("--out", type=Path, required=True, help="results and the cache of scores")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--budget", type=int, default=100, help="full evaluations")
    parser.add_argument("--holdout", type=float, default=0.78, help="share of the documents that no search looks at")
    parser.add_argument("--strategies", type=_names, default=list(ours()), help="of ours, by name; or none")
    parser.add_argument("--rivals", type=_names, default=list(RIVALS), help="by name; or none")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--report", action="store_true", help="run nothing: print the tables of the results")
    parser.add_argument("--figure", type=Path, help="with --report: also draw it there")
    settings = parser.parse_args(arguments)
    for name in settings.strategies:
        entrant(name)
    unknown = [name for name in settings.rivals if name not in RIVALS]
    if unknown:
        parser.error(f"rival {unknown[0]!r} is unknown: choose of {', '.join(RIVALS)}")
    return settings


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark; its exit status is 1 if a search failed."""
    settings = _parsed(arguments)
    terms = Terms(settings.budget, settings.holdout)
    done: list[bool] = []
    if not settings.report:
        names = [*settings.rivals, *settings.strategies]
        seeds = range(settings.first_seed, settings.first_seed + settings.seeds)
        known = {line.key for line in read_lines(settings.out / RESULTS)}
        models = {folder: models_of(open_zoo(folder)) for folder in settings.zoos}
        every = tasks_of(settings.zoos, names, seeds)
        left = [task for task in every if (task[0].name, models[task[0]], task[1], task[2], terms) not in known]
        # torch does not survive a fork
        with ProcessPoolExecutor(settings.jobs, multiprocessing.get_context("spawn")) as pool:
            done = list(pool.map(partial(run_task, terms, settings.out), left))
    lines = [line for line in read_lines(settings.out / RESULTS) if line.terms == terms]
    print(tables(lines))
    if settings.figure is not None:
        settings.figure.parent.mkdir(parents=True, exist_ok=True)
        settings.figure.write_text(draw(lines), encoding="utf-8")
    return 0 if all(done) else 1


if __name__ == "__main__":
    sys.exit(main())
