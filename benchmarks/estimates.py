"""How well a few documents, and earlier candidates, say what a candidate is worth on all of them.

    python -m benchmarks.estimates --folder FOLDER [--zoo FOLDER] [--preset tiny] [--trials 200] [--layers 4]
                                   [--studies cmaes:0,cmaes:1,tpe:0] [--splits 10] [--races 5]

Candidates are the later two thirds of real studies that scored everybody in full (kept in FOLDER): what a search
proposes late is alike, and harder to tell apart than random recipes. Each split deals 30 to 60 of them as known, the
rest as new, and draws the documents anew. Shown is Kendall's tau between the estimate and the score on all search
documents (mean over studies and splits, and the range that nine in ten of them lie in), the root mean square error,
and beside it the error that the estimator stated.

The second table is of a study's first third, which has hardly a history yet, estimated by another study's candidates
over the same documents (that of the same seed).

`--races N` replays the racing policies on each study's candidates, in the order in which they were proposed, with N
draws of the documents' order: what the policies scored, and by how much the best candidate beats their winner. What a
replay lacks is that the strategy learns from what the policy stopped; `benchmarks/racing.py` runs real studies.
"""

import argparse
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.stats import kendalltau

from benchmarks.estimates_lab import Table, make_tables
from benchmarks.evaluation import show
from benchmarks.racing import replay_row
from benchmarks.racing_lab import SKILLS, Plan, study_of
from benchmarks.racing_replay import Outcome, replay
from benchmarks.racing_replay import Table as RaceTable
from evaluation.quiet import quiet_libraries
from search.estimates.anchors import Anchors, choose_anchors, deal
from search.estimates.contract import Estimator, History, New, Positions
from search.estimates.features import Ridge
from search.estimates.irt import Irt, fit_documents
from search.estimates.plain import Difference, StratifiedMean
from search.searchspec import Prune
from zoo.make import Zoo, build

DOCUMENTS = (20, 80, 320)
BEGUN = (40, 80, 320)
SHARED = (1.0, 0.6)  # of the documents, what the older study has: all with the same seed
PREDECESSORS = 100
SURVIVORS = 20  # of a study that stopped its losers early, beside the baselines: its best
KNOWN = (30, 60)
BASELINES = 5  # the experts and the uniform soup
POLICIES: tuple[Prune, ...] = ("off", "halving", "history")
PLAIN: Mapping[str, Estimator] = {
    "mean": StratifiedMean(),
    "difference to past": Difference(),
    "ridge": Ridge(coefficients=False),
    "ridge, coefficients": Ridge(),
    "ridge, log-probabilities": Ridge(coefficients=False, logs=True),
    "ridge, both": Ridge(logs=True),
    "coefficients, no document": Ridge(items=False),
}
Found = tuple[float, float, float]  # tau, root mean square error, and that stated


def measure(table: Table, seed: int) -> dict[tuple[str, int], Found]:
    """One split of one study's candidates, by way and number of documents."""
    rng = np.random.default_rng(seed)
    values = table.values
    late = rng.permutation(np.arange(len(values) // 3, len(values)))
    cut = int(rng.integers(KNOWN[0], KNOWN[1] + 1))
    old, new = late[:cut], late[cut:]
    past = History(table.items[old], values[old], table.target, table.coefficients[old], table.logs[old])
    blind = History(past.items, past.values, past.target)
    model = fit_documents(past.items)[0]
    found: dict[tuple[str, int], Found] = {}
    for count in DOCUMENTS:
        drawn = draw(table, count, rng)
        anchors, surer = choose_anchors(blind, count, seed), choose_anchors(past, count, seed)
        asked: dict[str, tuple[Estimator, History, Positions]] = {
            **{way: (estimator, past, drawn) for way, estimator in PLAIN.items()},
            "pIRT": (Irt(mixed=False, model=model), past, drawn),
            "anchors": (Anchors(), blind, anchors),
            "anchors by log-probabilities": (Anchors(), past, surer),
            "gp-IRT on anchors": (Irt(model=model), blind, anchors),
            "ridge, coefficients, on anchors": (Ridge(), past, anchors),
        }
        for way, (estimator, history, seen) in asked.items():
            rows = New(table.items[new][:, seen], table.coefficients[new], table.logs[new][:, seen])
            said = estimator.fit(history, seen).estimate(rows)
            off = float(np.sqrt(np.mean((said.mean - values[new]) ** 2)))
            stated = float(np.sqrt(np.mean(said.error**2)))
            found[way, count] = float(kendalltau(said.mean, values[new]).statistic), off, stated
    return found


def measure_begun(new: Table, old: Table, shared: float, seed: int) -> dict[tuple[str, int], Found]:
    """A study's first candidates, after its baselines, by those of an older one; one draw of the documents.

    Args:
        shared: share of the search documents that the older study has scored.
    """
    rng = np.random.default_rng(seed)
    rows, truth = (each[BASELINES : len(new.values) // 3] for each in (new.items.astype(float), new.values))
    past = old.items[:: max(1, len(old.items) // PREDECESSORS)].astype(float)
    past[:, rng.random(past.shape[1]) > shared] = np.nan
    there = np.isfinite(past).any(axis=0)
    past[:, ~there] = np.nanmean(past)
    history = History(past, new.target.value(past), new.target)
    ways: dict[str, Estimator] = {
        "mean": StratifiedMean(),
        "ridge": Ridge(coefficients=False),
        "pIRT": Irt(mixed=False, model=fit_documents(np.where(there, past, np.nan))[0]),
    }
    found: dict[tuple[str, int], Found] = {}
    for count in BEGUN:
        seen = draw(new, count, rng)
        for way, estimator in ways.items():
            said = estimator.fit(history, seen).estimate(New(rows[:, seen]))
            off = float(np.sqrt(np.mean((said.mean - truth) ** 2)))
            stated = float(np.sqrt(np.mean(said.error**2)))
            found[way, count] = float(kendalltau(said.mean, truth).statistic), off, stated
    return found


def begun(tables: Sequence[Table], splits: int) -> None:
    """Print the table of a study's first candidates, by older ones of the same split; nothing where no two share it."""
    pairs = [(a, b) for a in tables for b in tables if a is not b and alike(a, b)]
    for shared in SHARED if pairs else ():
        found = [measure_begun(new, old, shared, seed) for new, old in pairs for seed in range(splits)]
        show_found(f"first candidates by an older study that has {shared:.0%} of the documents", found, BEGUN)


def alike(first: Table, second: Table) -> bool:
    """Whether two studies have the same split: their seeds are the same."""
    return first.name.rpartition("-")[2] == second.name.rpartition("-")[2]


def draw(table: Table, count: int, rng: np.random.Generator) -> Positions:
    """So many documents, of each task its share."""
    own = [np.flatnonzero(table.tasks == task) for task in range(table.target.count)]
    dealt = deal(table.target, count)
    return np.sort(np.concatenate([rng.permutation(ids)[:size] for ids, size in zip(own, dealt, strict=True)]))


def estimates(tables: Sequence[Table], splits: int) -> None:
    """Print the table of ways to estimate."""
    found = [measure(table, seed) for table in tables for seed in range(splits)]
    apart = ", ".join(f"{table.values[len(table.values) // 3 :].std():.3f}" for table in tables)
    title = f"{len(tables)} studies of {len(tables[0].values)} trials, sd {apart}; {splits} splits"
    show_found(title, found, DOCUMENTS)


def show_found(title: str, found: Sequence[Mapping[tuple[str, int], Found]], counts: Sequence[int]) -> None:
    """Print a row for each way, over all splits."""
    rows = []
    for way in dict.fromkeys(way for way, _ in found[0]):
        cells = [spread([each[way, count][0] for each in found]) for count in counts]
        for count in counts:
            off, stated = (statistics.fmean(each[way, count][i] for each in found) for i in (1, 2))
            cells.append(f"{off:.3f} / {stated:.3f}")
        rows.append([way, *cells])
    show(title, ["way", *(f"tau, {n}" for n in counts), *(f"error / stated, {n}" for n in counts)], rows)


def spread(values: Sequence[float]) -> str:
    """Mean, and where nine of ten lie."""
    low, high = np.quantile(values, [0.05, 0.95])
    return f"{statistics.fmean(values):.2f} ({low:.2f} – {high:.2f})"


def races(zoo: Zoo, tables: Sequence[Table], seeds: int) -> None:
    """Print what the racing policies make of these candidates, of each study and of all."""
    columns = ["policy", "documents", "regret", "found best", "holdout", "minus off's", "stopped", "wrong"]
    everything: list[dict[Prune, Outcome]] = []
    for table in tables:
        raced = race_table(table)
        specs = [
            {policy: study_of(zoo, policy, s, Plan(raced.candidates)) for policy in POLICIES} for s in range(seeds)
        ]
        everything += [{policy: replay(raced, spec) for policy, spec in each.items()} for each in specs]
        print(f"{table.name} raced", file=sys.stderr, flush=True)
    rows = [replay_row(policy, everything) for policy in POLICIES]
    show(f"{seeds} replays of each of {len(tables)} studies", columns, rows)


def races_begun(zoo: Zoo, tables: Sequence[Table], seeds: int) -> None:
    """Print what `history` makes of a study that has an older one over the same documents; nothing without a pair."""
    pairs = [
        (race_table(new), race_table(old)) for new in tables for old in tables if new is not old and alike(new, old)
    ]
    found: dict[str, list[Outcome]] = {}
    for new, old in pairs:
        spread_out = _of(old, range(0, old.candidates, max(1, old.candidates // PREDECESSORS)))
        survivors = _of(old, [*range(BASELINES), *np.argsort(_totals(old))[-SURVIVORS:].tolist()])
        for seed in range(seeds):
            spec, full = (study_of(zoo, policy, seed, Plan(new.candidates)) for policy in ("history", "off"))
            off = replay(new, full)
            for way, older in {"none": None, "scored in full": spread_out, "raced": survivors}.items():
                outcome = replay(new, spec, older)
                found.setdefault(way, []).append(replace(outcome, holdout=outcome.holdout - off.holdout))
    rows = [[way, *replay_row("history", [{"history": each} for each in own])[1:]] for way, own in found.items()]
    columns = ["older study", "documents", "regret", "found best", "holdout minus off's", "", "stopped", "wrong"]
    show(f"history, {seeds} replays of each of {len(pairs)} studies", columns, rows)


def _of(table: RaceTable, candidates: Sequence[int]) -> RaceTable:
    """Some of the candidates."""
    return replace(table, items={task: found[list(candidates)] for task, found in table.items.items()}, params=())


def _totals(table: RaceTable) -> np.ndarray:
    """What each candidate has on all documents, [candidates]."""
    return np.mean([found.mean(axis=1) for found in table.items.values()], axis=0)


def race_table(table: Table) -> RaceTable:
    """The same candidates for the replay, in their order."""
    names = [f"w{i:03}" for i in range(table.coefficients.shape[1])]
    params = [
        None if np.isnan(row).any() else dict(zip(names, row.tolist(), strict=True)) for row in table.coefficients
    ]
    items = {task: table.items[:, table.tasks == i] for i, task in enumerate(SKILLS)}
    return RaceTable(items, BASELINES, tuple(params), shuffled=False)


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description="How well a few documents and earlier candidates say a full score.")
    parser.add_argument("--folder", type=Path, required=True, help="where the studies' candidates are kept")
    parser.add_argument("--zoo", type=Path, help="a folder with the zoo, or for it; without one it is made in --folder")
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--studies", default="cmaes:0,cmaes:1,tpe:0", help="strategy and seed of each")
    parser.add_argument("--splits", type=int, default=10)
    parser.add_argument("--races", type=int, default=0, metavar="N", help="replay the racing policies so often")
    settings = parser.parse_args()
    quiet_libraries()
    zoo = build(settings.zoo or settings.folder / "zoo", preset=settings.preset)
    plan = Plan(settings.trials, "", settings.layers)
    asked = [text.split(":") for text in settings.studies.split(",")]
    tables = make_tables(zoo, settings.folder, [(strategy, int(seed)) for strategy, seed in asked], plan)
    estimates(tables, settings.splits)
    begun(tables, settings.splits)
    if settings.races:
        races(zoo, tables, settings.races)
        races_begun(zoo, tables, settings.races)


if __name__ == "__main__":
    main()
