"""What keeping experts compressed costs: each codec's size, its time, and the score of a search's winner, on the zoo.

    python -m benchmarks.codecs [--seeds 3] [--trials 40] [--method task_arithmetic] [--codecs bitdelta,xor]
                                [--zoo FOLDER] [--jobs 2]

For each codec and seed (of the split and of the sampler) a whole study whose experts are kept compressed: its best
recipe, the same recipe from the experts as they are, and how the better of the two on the search documents compares
with the winner of the same study without compression. Scores are means over the seeds with 95 % intervals by Student's
t. Bits count all of an expert's parameters, norms and embeddings too. Packing is of all experts; building is of one
candidate, as a ratio to the experts as they are, in turn in one process. The second table packs and makes one tensor
as large models have them.
"""

import argparse
import logging
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from api.prepared import Fingerprinted, prepare
from benchmarks.evaluation import show
from benchmarks.racing import spread
from benchmarks.racing_lab import Lab, Plan, search, study_of
from db.store import open_home
from merging.artefacts.place import VARIABLE
from merging.compression import Compression
from merging.models import ModelSet
from merging.recipe import SCHEMA, GroupMerge, Recipe
from merging.resident import ResidentModel
from search.verdict import Verdict
from zoo.make import Zoo, build

CODECS = (
    Compression(codec="bitdelta"),
    Compression(codec="bitdelta", settings={"rows": 1}),
    Compression(codec="compeft", settings={"density": 0.1}),
    Compression(codec="compeft", settings={"density": 0.3}),
    Compression(codec="sparse", settings={"density": 0.1}),
    Compression(codec="lowrank", settings={"energy": 0.8}),
    Compression(codec="lowrank", settings={"energy": 0.95}),
    Compression(codec="xor"),
)
ROWS, COLUMNS = 1024, 4096
BUILDS = 30


@dataclass(frozen=True, slots=True)
class Result:
    """One study: its winner, and where experts were compressed the best recipe without that and with it.

    Attributes:
        bits: of a parameter.
        share: of the bytes of base and experts as they are.
        packing: seconds.
    """

    search: float
    holdout: float
    bits: float = 0.0
    share: float = 1.0
    packing: float = 0.0
    whole_search: float = 0.0
    whole_holdout: float = 0.0

    @property
    def won(self) -> float:
        """On the holdout, what is better on the search documents."""
        return self.whole_holdout if self.whole_search > self.search else self.holdout


Found = dict[str, Result]


def label(by: Compression) -> str:
    """As a row of the table names it."""
    return " ".join([by.codec, *(f"{name} {value:g}" for name, value in by.settings.items())])


def run_seed(zoo: Zoo, settings: argparse.Namespace, seed: int) -> Found:
    """Every row with one seed, in turn, in a process of its own, on one thread."""
    import torch

    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    found: Found = {}
    for by in (None, *(by for by in CODECS if by.codec in settings.codecs)):
        name = label(by) if by else "as they are"
        with tempfile.TemporaryDirectory() as folder:
            os.environ[VARIABLE] = folder  # packed anew for each
            found[name] = _study(zoo, Plan(settings.trials, methods=(settings.method,), compress=by), seed)
        print(f"seed {seed}: {name} {found[name]}", file=sys.stderr, flush=True)
    return found


def _study(zoo: Zoo, plan: Plan, seed: int) -> Result:
    spec = study_of(zoo, "halving", seed, plan)
    models = ModelSet.open(zoo.base, zoo.experts)
    assert models.fingerprints, "read once, before the clock runs"
    packing = time.perf_counter()
    models.compressed(plan.compress)
    packing = time.perf_counter() - packing
    prepared = prepare(spec, Fingerprinted(None))
    lab = Lab(zoo, prepared.suite, prepared.space.compress)
    with tempfile.TemporaryDirectory() as home, closing(open_home(Path(home))) as store:
        verdict, _ = search(prepared, lab, store)
    if verdict.compressed is None:
        winner = verdict.of(verdict.winner)
        return Result(winner.search, winner.holdout)
    return _pair(verdict, packing)


def _pair(verdict: Verdict, packing: float) -> Result:
    packed = verdict.compressed
    assert packed is not None
    if packed.pair is None:  # nothing was lost
        small = whole = verdict.of(verdict.winner)
    else:
        small, whole = (verdict.of(number) for number in packed.pair)
    size = (packed.bits_per_parameter, packed.bytes_ / packed.whole_bytes)
    return Result(small.search, small.holdout, *size, packing, whole.search, whole.holdout)


def building(zoo: Zoo, method: str) -> dict[str, float]:
    """How long a candidate of compressed experts takes to build, as a multiple; medians of so many in turn."""
    import torch

    torch.set_num_threads(1)
    models = ModelSet.open(zoo.base, zoo.experts)
    live = {name: torch.zeros(models.shape(name)) for name in models.base.names}
    plain, ratios = ResidentModel(models, live), {}
    for by in CODECS:
        packed = ResidentModel(models.compressed(by), live)
        times: tuple[list[float], list[float]] = ([], [])
        for turn in range(BUILDS):
            weights = {name: 0.2 + turn / BUILDS / (1 + place) for place, name in enumerate(models.names)}
            for kind, (writer, compress) in enumerate(((plain, None), (packed, by))):
                times[kind].append(writer.apply(_recipe(models, method, weights, compress)).seconds)
        ratios[label(by)] = statistics.median(times[1]) / statistics.median(times[0])
    return ratios


def _recipe(models: ModelSet, method: str, weights: dict[str, float], compress: Compression | None) -> Recipe:
    whole = GroupMerge(layers=(0, models.layout.layer_count), method=method, weights=weights)
    places = {name: str(each.path) for name, each in models.experts.items()}
    return Recipe(schema_=SCHEMA, base=str(models.base.path), experts=places, compress=compress, groups=(whole,))


def table(found: Sequence[Found], times: dict[str, float]) -> list[list[str]]:
    """A line a row.

    Args:
        times: of building, by row.
    """
    plain = [results["as they are"] for results in found]
    lines = []
    for name in found[0]:
        rows = [results[name] for results in found]
        line = [name]
        packed = name != "as they are"
        line += [f"{rows[0].bits:.2f}", f"{rows[0].share:.0%}"] if packed else ["32", "100%"]
        line += [spread([row.search for row in rows]), spread([row.holdout for row in rows])]
        if packed:
            minus = [own.won - other.holdout for own, other in zip(rows, plain, strict=True)]
            line += [spread([row.whole_holdout for row in rows]), spread(minus, "{:+.3f}")]
            line += [f"{statistics.mean(row.packing for row in rows):.2f}", f"{times[name]:.1f}"]
        lines.append(line)
    return lines


def large() -> list[list[str]]:
    """Packing and making one tensor of 1024 × 4096 in float32, on one thread: the medians of five."""
    import torch

    from merging.codecs.catalog import codec, implementation
    from merging.codecs.size import payload_bytes
    from merging.methods.contract import Role

    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(ROWS, COLUMNS, generator=generator) * 0.02
    low = torch.randn(ROWS, 16, generator=generator) @ torch.randn(16, COLUMNS, generator=generator)
    expert = base + 1e-4 * low + 1e-4 * torch.randn(ROWS, COLUMNS, generator=generator)
    lines = []
    role: Role = "matrix"
    for by in CODECS:
        code, settings = implementation(by.codec), codec(by.codec).checked(by.settings)
        packing, making = [], []
        for _ in range(5):
            began = time.perf_counter()
            packed = code.pack(base, expert, role, settings)
            packing.append(time.perf_counter() - began)
            began = time.perf_counter()
            packed.expert(base)
            making.append(time.perf_counter() - began)
        bits = f"{8 * payload_bytes(packed) / base.numel():.2f}"
        times = [f"{1000 * statistics.median(each):.1f}" for each in (packing, making)]
        lines.append([label(by), bits, *times])
    return lines


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description="What keeping experts compressed costs, on the zoo.")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--method", default="task_arithmetic")
    parser.add_argument("--codecs", type=lambda text: tuple(text.split(",")), default=tuple(by.codec for by in CODECS))
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--zoo", type=Path)
    parser.add_argument("--jobs", type=int, default=2)
    settings = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        zoo = build(settings.zoo or Path(folder), preset=settings.preset)
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(settings.jobs, mp_context=context) as pool:
            found = list(pool.map(partial(run_seed, zoo, settings), range(settings.seeds)))
        times = building(zoo, settings.method)
    print(f"{settings.preset} zoo, {settings.method}, {settings.seeds} seeds, {settings.trials} trials\n")
    header = ["codec", "bits", "memory", "search", "holdout", "originals: holdout", "better one minus uncompressed"]
    show("", [*header, "packing, s", "building, ×"], table(found, times))
    print(f"One tensor of {ROWS} × {COLUMNS}\n")
    show("", ["codec", "bits", "packing, ms", "making, ms"], large())


if __name__ == "__main__":
    main()
