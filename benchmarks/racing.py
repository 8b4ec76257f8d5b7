"""What stopping trials early saves on the zoo, and what it costs: real studies over several seeds.

    python -m benchmarks.racing [--seeds 5] [--trials 100] [--policies off,paired_test,halving,hyperband,one_shot]
                                [--strategy tpe] [--layers 1] [--preset tiny] [--zoo FOLDER] [--jobs 2] [--audit N]
    python -m benchmarks.racing --replay 90 --seeds 100 --folder FOLDER

Studies of task arithmetic over the zoo's four skills, every policy with the same number of trials. A seed is that
of the document split and of the sampler. Shown are means over the seeds with 95 % intervals by Student's t: search
documents scored as a share of what `off` scored with the same seed; the winner's score on the holdout; the difference
to `off`'s winner, paired by seed. Afterwards, outside the study, its stopped trials are scored in full (`--audit N`: N
of them, at random), and those counted that are better than the incumbent of their time, and than the study's winner.

`--replay N` races N random candidates that were all scored in full once (kept in FOLDER) in as many random orders, with
as many splits, as there are seeds: cheap, so that rare mistakes show. *Regret* is by how much the truly best candidate
beats the winner on the search documents; *wrong* the share of the trials better than the incumbent of their time that
were stopped.
"""

import argparse
import logging
import multiprocessing
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import get_args

from benchmarks.evaluation import show
from benchmarks.racing_lab import Lab, Plan, Run, interval, run_study, study_of
from benchmarks.racing_replay import Outcome, Table, make_table, replay
from search.searchspec import Prune
from zoo.make import Zoo, build

POLICIES: tuple[Prune, ...] = get_args(Prune)


def run_seed(zoo: Zoo, policies: Sequence[Prune], plan: Plan, audit: int, seed: int) -> list[Run]:
    """Every policy with one seed, in turn, in a process of its own, on one thread."""
    import torch

    torch.set_num_threads(1)
    _quiet()
    return [run_study(zoo, policy, seed, plan, audit) for policy in policies]


def replay_seed(zoo: Zoo, table: Table, policies: Sequence[Prune], seed: int) -> dict[Prune, Outcome]:
    """Every policy over one order of the candidates."""
    return {policy: replay(table, study_of(zoo, policy, seed, Plan(table.candidates))) for policy in policies}


def studies_row(policy: Prune, runs: Mapping[tuple[Prune, int], Run], seeds: Sequence[int]) -> list[str]:
    """A policy's line of the table of studies."""
    own = [runs[policy, seed] for seed in seeds]
    against = [runs.get(("off", seed)) for seed in seeds]
    share = [run.documents / full.documents for run, full in zip(own, against, strict=True) if full]
    minus = [run.holdout - full.holdout for run, full in zip(own, against, strict=True) if full]
    stops = [run.stops for run in own]
    return [
        policy,
        spread(share, "{:.1%}"),
        f"{statistics.fmean(run.search for run in own):.3f}",
        spread([run.holdout for run in own]),
        spread(minus, "{:+.4f}") if policy != "off" else "",
        f"{sum(s.stopped for s in stops)}",
        f"{sum(s.audited for s in stops)}",
        f"{sum(s.beat_incumbent for s in stops)}",
        f"{sum(s.beat_winner for s in stops)}",
        f"{max(s.best_lost for s in stops):.4f}",
        f"{statistics.median(run.seconds for run in own):.0f}",
    ]


def replay_row(policy: Prune, outcomes: Sequence[Mapping[Prune, Outcome]]) -> list[str]:
    """A policy's line of the table of replays."""
    own = [found[policy] for found in outcomes]
    minus = [found[policy].holdout - found["off"].holdout for found in outcomes if "off" in found]
    better = sum(o.wrong + o.right for o in own)
    return [
        policy,
        spread([o.share for o in own], "{:.1%}"),
        spread([o.regret for o in own], "{:.4f}"),
        f"{statistics.fmean(o.best for o in own):.0%}",
        spread([o.holdout for o in own]),
        spread(minus, "{:+.4f}") if minus and policy != "off" else "",
        f"{sum(o.stopped for o in own)}",
        f"{sum(o.wrong for o in own)} of {better}",
    ]


def spread(values: Sequence[float], form: str = "{:.3f}") -> str:
    """Mean and interval; empty where there is nothing."""
    if not values:
        return ""
    mean, low, high = (form.format(number) for number in interval(values))
    return f"{mean} [{low}, {high}]" if len(values) > 1 else mean


def studies(zoo: Zoo, settings: argparse.Namespace) -> None:
    """Run the studies and print their table."""
    seeds, policies = range(settings.seeds), settings.policies
    plan = Plan(settings.trials, settings.strategy, settings.layers)
    work = partial(run_seed, zoo, policies, plan, settings.audit)
    runs: dict[tuple[Prune, int], Run] = {}
    with _pool(settings.jobs) as pool:
        for found in pool.map(work, seeds):
            runs.update({(run.policy, run.seed): run for run in found})
            print(f"seed {found[0].seed} done", file=sys.stderr, flush=True)
    columns = ["policy", "documents of off's", "search", "holdout", "minus off's", "stopped", "audited"]
    columns += ["beat incumbent", "beat winner", "by at most", "median s"]
    rows = [studies_row(policy, runs, seeds) for policy in policies]
    title = f"{settings.seeds} seeds, {plan.trials} trials of {plan.strategy}, {plan.layers} groups, zoo {zoo.preset}"
    show(title, columns, rows)


def replays(zoo: Zoo, settings: argparse.Namespace, folder: Path) -> None:
    """Race the candidates of a table and print what came of it."""
    from api.prepared import Fingerprinted, prepare

    prepared = prepare(study_of(zoo, "off", 0, Plan(settings.replay)), Fingerprinted(None))
    table = make_table(zoo, Lab(zoo, prepared.suite), settings.replay, folder, prepared.setup["layer_count"])
    work = partial(replay_seed, zoo, table, settings.policies)
    with _pool(settings.jobs) as pool:
        outcomes = list(pool.map(work, range(settings.seeds)))
    columns = ["policy", "documents", "regret", "found best", "holdout", "minus off's", "stopped", "wrong"]
    rows = [replay_row(policy, outcomes) for policy in settings.policies]
    show(f"{settings.seeds} replays of {table.candidates} candidates, zoo {zoo.preset}", columns, rows)


def _pool(jobs: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"))  # torch does not survive a fork


def _quiet() -> None:
    from evaluation.quiet import quiet_libraries

    quiet_libraries()
    logging.getLogger("lm_eval").setLevel(logging.ERROR)


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description="What stopping trials early saves, and what it costs.")
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--zoo", type=Path, help="a folder with the zoo, or for it; without one it is trained anew")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--strategy", default="tpe")
    parser.add_argument("--layers", type=int, default=1, help="ranges of layers with weights of their own")
    parser.add_argument("--policies", type=lambda text: text.split(","), default=list(POLICIES))
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--audit", type=int, default=10, help="stopped trials of each study that are scored in full")
    parser.add_argument("--replay", type=int, metavar="N", help="race N candidates that were scored in full once")
    parser.add_argument("--folder", type=Path, help="where those are kept")
    settings = parser.parse_args()
    _quiet()
    with tempfile.TemporaryDirectory() as folder:
        zoo = build(settings.zoo or Path(folder) / "zoo", preset=settings.preset)
        if settings.replay:
            replays(zoo, settings, settings.folder or Path(folder))
        else:
            studies(zoo, settings)


if __name__ == "__main__":
    main()
