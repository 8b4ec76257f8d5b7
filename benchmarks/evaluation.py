"""What a candidate's score costs: our scorer against lm-eval, and against a bare forward pass over the same tokens.

    python -m benchmarks.evaluation [--sizes 1m,10m,100m] [--kinds choice,generation,rolling] [--rounds 3]
                                    [--batch-size 16] [--own-batch-size auto] [--threads 1] [--no-command-line]
                                    [--documents N]

Random Llamas of about 1, 10 and 100 M parameters in float32 and three local tasks: four-option multiple choice and
arithmetic by generation, both with 4 shots, and rolling perplexity (400, 100 and 20 documents a task). Every round
changes the weights a little, in place, as a merge does, and runs all modes in turn; shown are medians of CPU and of
wall seconds, and ratios. `first` is a candidate of a scorer that has seen nothing, `next` one that comes after others:
prompts are tokenised and planned, and earlier answers serve as drafts.

The first table is of the model's answers alone: lm-eval's own HFLM on the loaded model gets the same requests, and the
*limit* is a bare forward pass (`benchmarks/bare.py`). The second is of whole candidates with all tasks, metrics
included: `simple_evaluate` gets the loaded model and an index of tasks that is made once (its own takes 6 s a call);
the command line starts a process. The third compares what they answered.
"""

import argparse
import logging
import statistics
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.build import Times
from benchmarks.lm_bed import Bed, Difference
from benchmarks.lm_fixtures import KINDS, SIZES

LIMIT = "limit"
ANSWERS = ("first", "next", "HFLM", LIMIT)
CANDIDATES = ("first", "next", "simple_evaluate", "command line")
Measured = dict[tuple[str, str], list[Times]]  # of a kind (or "candidate") and a mode


def measure(bed: Bed, rounds: int, command_line: bool) -> tuple[Measured, dict[str, list[Difference]]]:
    """All modes in turn, round after round; what they took, and how their answers differ."""
    times: Measured = {}
    differences: dict[str, list[Difference]] = {kind: [] for kind in (*bed.kinds, "metrics", "printed metrics")}
    if command_line:
        times["candidate", "command line"] = [bed.command_line()]
    differences["printed metrics"] = bed.warm_up()
    for _ in range(rounds):
        bed.change_weights()
        for kind in bed.kinds:
            for mode in ANSWERS:
                times.setdefault((kind, mode), []).append(bed.answer(kind, mode))
            differences[kind].append(bed.difference(kind))
        for mode in CANDIDATES[:3]:
            times.setdefault(("candidate", mode), []).append(bed.candidate(mode))
        differences["metrics"].append(bed.metric_difference())
    return times, {of: found for of, found in differences.items() if found}


def median(times: Measured, kind: str, mode: str, which: int) -> float | None:
    """Median seconds, wall (0) or CPU (1); None if it was not measured."""
    found = times.get((kind, mode))
    return statistics.median(each[which] for each in found) if found else None


def quotient(other: str, theirs: float | None, mine: float | None) -> str:
    """How many times our time another's is; for the limit, how many times the limit ours is."""
    return ratio(mine, theirs) if other == LIMIT else ratio(theirs, mine)


def ratio(slow: float | None, fast: float | None) -> str:
    """How many times as long the first took."""
    return f"{slow / fast:.2f}" if slow is not None and fast else ""


def heading(other: str, own: str) -> str:
    """The heading of that quotient."""
    return f"{own} ÷ {other}" if other == LIMIT else f"{other} ÷ {own}"


def rows_of(size: str, times: Measured, kinds: Iterable[str], others: Sequence[str], which: int) -> list[list[str]]:
    """Lines of a table: seconds of every mode, then the others' against `first` and `next`."""
    rows = []
    for kind in kinds:
        own = [median(times, kind, mode, which) for mode in ("first", "next")]
        found = [median(times, kind, other, which) for other in others]
        seconds = ["" if value is None else f"{value:.3f}" for value in (*own, *found)]
        rows.append(
            [size, kind, *seconds, *(quotient(*pair, mine) for pair in zip(others, found, strict=True) for mine in own)]
        )
    return rows


def show(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table, as Markdown reads it."""
    from rich import box

    table = Table(title=title, box=box.MARKDOWN)
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i < 2 else "right")
    for row in rows:
        table.add_row(*row)
    Console(width=200).print(table)


def report(results: Mapping[str, tuple[Measured, dict[str, list[Difference]]]], kinds: Sequence[str]) -> None:
    """Print what was measured, of every size."""
    for which, clock in ((1, "CPU"), (0, "wall")):
        others = ANSWERS[2:]
        columns = ["model", "task", *(f"{mode} s" for mode in ANSWERS)]
        columns += [heading(other, own) for other in others for own in ANSWERS[:2]]
        rows = [row for size, (times, _) in results.items() for row in rows_of(size, times, kinds, others, which)]
        show(f"The model's answers, {clock} seconds", columns, rows)
    for which, clock in ((1, "CPU"), (0, "wall")):
        others = CANDIDATES[2:]
        columns = ["model", "", *(f"{mode} s" for mode in CANDIDATES)]
        columns += [heading(other, own) for other in others for own in CANDIDATES[:2]]
        rows = [r for size, (times, _) in results.items() for r in rows_of(size, times, ["candidate"], others, which)]
        show(f"Whole candidates, {clock} seconds", columns, rows)
    columns = ["model", "of", "largest difference", "changed", "of answers", "drafts right"]
    show("Differences to lm-eval, over all rounds", columns, difference_rows(results))


def difference_rows(results: Mapping[str, tuple[Measured, dict[str, list[Difference]]]]) -> list[list[str]]:
    """Lines of the table of differences: the largest of all rounds, and the sums of the counts."""
    rows = []
    for size, (_, differences) in results.items():
        for kind, found in differences.items():
            largest = max(each.largest for each in found)
            changed, answers = sum(each.changed for each in found), sum(each.answers for each in found)
            right = [each.drafts_right for each in found if each.drafts_right is not None]
            drafts = f"{statistics.fmean(right):.0%}" if right else ""
            rows.append([size, kind, f"{largest:.2g}", str(changed), str(answers), drafts])
    return rows


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description="What a candidate's score costs.")
    parser.add_argument("--sizes", default=",".join(SIZES))
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=16, help="lm-eval's")
    parser.add_argument("--own-batch-size", default="auto", help="ours: most sequences at once, or auto")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--no-command-line", action="store_true")
    parser.add_argument("--documents", type=int, help="of each task, instead of the size's own number")
    settings = parser.parse_args()
    torch.set_num_threads(settings.threads)
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    kinds = settings.kinds.split(",")
    own_batch = None if settings.own_batch_size == "auto" else int(settings.own_batch_size)
    results = {}
    for size in settings.sizes.split(","):
        with tempfile.TemporaryDirectory() as folder:
            shape = SIZES[size]
            shape = replace(shape, documents=settings.documents or shape.documents)
            bed = Bed(Path(folder), shape, kinds, settings.batch_size, own_batch)
            results[size] = measure(bed, settings.rounds, not settings.no_command_line)
            print(
                f"{size}: {bed.parameters / 1e6:.1f} M parameters, {shape.documents} documents a task, "
                f"{bed.positions} positions at the limit; {settings.threads} threads, {settings.rounds} rounds",
                flush=True,
            )
    report(results, kinds)


if __name__ == "__main__":
    main()
