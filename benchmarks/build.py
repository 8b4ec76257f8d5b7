"""How long one candidate takes to build: against copying the same bytes, and against mergekit.

    python benchmarks/build.py [--parameters 1.2e8] [--experts 3] [--dtype float32] [--threads N] [--repeats 5]

Makes a random Llama-shaped base and experts in a temporary folder, then times task arithmetic, all modes in turn
in one process: medians, and ratios to a plain `copy_` that reads and writes as many bytes as reading every model
once and writing the result once. mergekit takes part where it can be imported (run this in an environment of its own,
with PYTHONPATH set to this repository); page caches are warm in every mode.
"""

import argparse
import itertools
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from merging.export import export
from merging.models import ModelSet
from merging.recipe import SCHEMA, GroupMerge, Recipe
from merging.resident import ResidentModel
from merging.schedule import ranges
from zoo.random import build_random

GROUPS = 4
Times = tuple[float, float]  # wall and CPU seconds
Modes = dict[str, Callable[[], Times]]


def recipes(models: ModelSet) -> Iterator[tuple[Recipe, Recipe]]:
    """Endless pairs of recipes: one that differs from all before in every group, one that then differs in one."""
    spans = ranges(models.layout.layer_count, GROUPS)
    paths = {name: str(e.path) for name, e in models.experts.items()}

    def group(span: tuple[int, int], weight: float) -> GroupMerge:
        return GroupMerge(layers=span, method="task_arithmetic", weights=dict.fromkeys(models.names, weight))

    def made(groups: tuple[GroupMerge, ...]) -> Recipe:
        return Recipe(schema_=SCHEMA, base=str(models.base.path), experts=paths, groups=groups)

    for i in itertools.count():
        new, newer = 0.2 + (i % 1000) * 1e-4, 0.4 + (i % 1000) * 1e-4
        full = tuple(group(span, new) for span in spans)
        one = (full[0], group(spans[1], newer), *full[2:])
        yield made(full), made(one)


def timed(call: Callable[[], object]) -> Times:
    """Wall and CPU seconds of one call; on a shared machine the CPU seconds of one thread are the steadier figure."""
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - wall, time.process_time() - cpu


def our_modes(root: Path, models: ModelSet, dtype: torch.dtype) -> Modes:
    """The copy that everything is compared with, and what this repository does."""
    live = {name: torch.zeros(models.base.entry(name).shape, dtype=dtype) for name in models.base.names}
    resident, supply = ResidentModel(models, live), recipes(models)
    count = sum(t.numel() for t in live.values()) * (len(models.names) + 2) // 2
    source, target = torch.ones(count, dtype=dtype), torch.zeros(count, dtype=dtype)
    pending: list[Recipe] = []

    def build() -> Times:
        full, one = next(supply)
        pending[:] = [one]
        return timed(lambda: resident.apply(full))

    def to_disk() -> Times:
        seconds = timed(lambda: export(next(supply)[0], models, root / "out"))
        shutil.rmtree(root / "out")
        return seconds

    return {
        "copy_ of the same bytes": lambda: timed(lambda: target.copy_(source)),
        "build, every group": build,
        f"build, one group of {GROUPS}": lambda: timed(lambda: resident.apply(pending[0])),
        "export (with fsync)": to_disk,
    }


def mergekit_modes(root: Path, models: ModelSet, dtype: torch.dtype) -> Modes:
    """The same merge by mergekit: in memory into a live model, and from disk to disk; none if not installed."""
    try:
        from mergekit.config import MergeConfiguration
        from mergekit.merge import run_merge
        from mergekit.merge_methods.api import merge_state_dicts
        from mergekit.options import MergeOptions
    except ImportError:
        return {}
    sources: dict[str, Any] = {"base": models.base, **models.experts}
    states = {name: {n: c.tensor(n).clone() for n in models.base.names} for name, c in sources.items()}
    live = {name: torch.zeros_like(tensor) for name, tensor in states["base"].items()}
    weights = dict.fromkeys(models.names, 0.3)
    config = MergeConfiguration.model_validate(
        {
            "merge_method": "task_arithmetic",
            "base_model": str(root / "base"),
            "dtype": str(dtype).removeprefix("torch."),
            "models": [{"model": str(root / n), "parameters": {"weight": 0.3}} for n in models.names],
        }
    )

    def in_memory() -> None:
        merged = merge_state_dicts(states, "task_arithmetic", parameters={"weight": weights}, base="base", dtype=dtype)
        for name, tensor in merged.items():
            live[name].copy_(tensor)

    def to_disk() -> Times:
        options = MergeOptions(copy_tokenizer=False, write_model_card=False, quiet=True)
        seconds = timed(lambda: run_merge(config, str(root / "theirs"), options=options))
        shutil.rmtree(root / "theirs")
        return seconds

    return {"mergekit in memory": lambda: timed(in_memory), "mergekit to disk (no fsync)": to_disk}


def report(seconds: dict[str, list[Times]], parameters: int, settings: argparse.Namespace) -> None:
    """Prints medians and ratios to the first mode."""
    middle = {mode: [statistics.median(kind) for kind in zip(*times, strict=True)] for mode, times in seconds.items()}
    wall_unit, cpu_unit = next(iter(middle.values()))
    print(f"{parameters / 1e6:.1f} M parameters, {settings.experts} experts, {settings.dtype}, ", end="")
    print(f"{torch.get_num_threads()} threads, median of {settings.repeats}, load {os.getloadavg()[0]:.1f}")
    print(f"{'mode':<30} {'wall s':>8} {'× copy':>7} {'CPU s':>8} {'× copy':>7}")
    for mode, (wall, cpu) in middle.items():
        print(f"{mode:<30} {wall:>8.4f} {wall / wall_unit:>7.2f} {cpu:>8.4f} {cpu / cpu_unit:>7.2f}")


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description="How long one candidate takes to build.")
    parser.add_argument("--parameters", type=float, default=1.2e8)
    parser.add_argument("--experts", type=int, default=3)
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=5)
    settings = parser.parse_args()
    torch.set_num_threads(settings.threads)
    dtype = getattr(torch, settings.dtype)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        made = build_random(root, settings.parameters, settings.experts, settings.dtype)
        models = ModelSet.open(made.base, made.experts)
        theirs = mergekit_modes(root, models, dtype)
        modes = our_modes(root, models, dtype) | theirs
        seconds: dict[str, list[Times]] = {mode: [] for mode in modes}
        for turn in range(settings.repeats + 1):
            for mode, run in modes.items():
                took = run()
                if turn:  # the first turn warms caches
                    seconds[mode].append(took)
        report(seconds, made.parameters, settings)
        if not theirs:
            print("mergekit: not installed")


if __name__ == "__main__":
    main()
