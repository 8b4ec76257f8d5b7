"""How long one candidate takes to build: against copying the same bytes, against torch alone, and against mergekit.

    python -m benchmarks.build [--parameters 1e8] [--experts 3] [--dtype bfloat16] [--threads N] [--repeats 7]
                               [--methods task_arithmetic,ties,...]

Makes a random Llama-shaped base and experts in a temporary folder, then times each method, all modes in turn in one
process: medians, and ratios to the floor, a plain `copy_` that moves as many bytes as reading every model once and
writing the result once. Candidates differ in their weights, as a search's do: what does not depend on weights is
prepared (the first build is shown apart). mergekit takes part where it can be imported (run this in an environment of
its own, with PYTHONPATH set to this repository), once a method, in memory; page caches are warm in every mode.
"""

import argparse
import itertools
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from merging.catalog import CATALOG
from merging.kernel.choice import VARIABLE
from merging.models import ModelSet
from merging.recipe import SCHEMA, GroupMerge, Recipe
from merging.resident import ResidentModel
from zoo.random import build_random

# ours: mergekit's name and parameters of each expert, for the methods that the targets name
THEIRS: Mapping[str, tuple[str, dict[str, float]]] = {
    "task_arithmetic": ("task_arithmetic", {}),
    "ties": ("ties", {"density": 0.5}),
    "breadcrumbs": ("breadcrumbs", {"density": 0.5, "gamma": 0.01}),
    "dare": ("dare_linear", {"density": 0.5}),
    "dare_ties": ("dare_ties", {"density": 0.5}),
    "della": ("della", {"density": 0.5, "epsilon": 0.1}),
}
OURS: Mapping[str, dict[str, float]] = {
    name: {k: v / 0.5 if k == "epsilon" else v for k, v in given.items()} for name, (_, given) in THEIRS.items()
}
Times = tuple[float, float]  # wall and CPU seconds


def recipes(models: ModelSet, method: str, layers: tuple[int, int] | None = None) -> Iterator[Recipe]:
    """Endless recipes that differ in every weight."""
    row, whole = CATALOG[method], (0, models.layout.layer_count)
    paths = {name: str(e.path) for name, e in models.experts.items()}
    for i in itertools.count():
        shift = (i % 1000) * 1e-4
        weights = {name: 0.3 + 0.05 * k + shift for k, name in enumerate(models.names)} if row.weight else {}
        lambda_ = {"lambda": 1.0 + shift} if row.parameter("lambda") and not row.weight else {}
        parameters: dict[str, Any] = {**OURS.get(method, {}), **lambda_}
        group = GroupMerge(layers=whole, method=method, weights=weights, parameters=parameters)
        yield Recipe(schema_=SCHEMA, base=str(models.base.path), experts=paths, groups=(group,))


def timed(call: Callable[[], object]) -> Times:
    """Wall and CPU seconds of one call; on a shared machine the CPU seconds of one thread are the steadier figure."""
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - wall, time.process_time() - cpu


class Ours:
    """Our builds of one method, into one live model."""

    def __init__(self, models: ModelSet, live: dict[str, torch.Tensor], method: str, kernel: str) -> None:
        self._resident = ResidentModel(models, live, memo_bytes=8 << 30)
        self._supply, self._kernel = recipes(models, method), kernel

    def build(self) -> Times:
        """One candidate."""
        os.environ[VARIABLE] = self._kernel
        recipe = next(self._supply)
        return timed(lambda: self._resident.apply(recipe))


def mergekit_build(models: ModelSet, live: dict[str, torch.Tensor], method: str) -> Callable[[], Times] | None:
    """The same merge by mergekit, in memory into a live model; None if it is not installed or lacks the method."""
    try:
        from mergekit.merge_methods.api import merge_state_dicts
    except ImportError:
        return None
    if method not in THEIRS:
        return None
    name, given = THEIRS[method]
    sources: dict[str, Any] = {"base": models.base, **models.experts}
    states = {n: {t: c.tensor(t) for t in models.base.names} for n, c in sources.items()}
    dtype = next(iter(live.values())).dtype
    parameters = {"weight": dict.fromkeys(models.names, 0.3)}
    parameters |= {key: dict.fromkeys(models.names, value) for key, value in given.items()}

    def build() -> None:
        merged = merge_state_dicts(states, name, parameters=parameters, base="base", dtype=dtype)
        for tensor, values in merged.items():
            live[tensor].copy_(values)

    return lambda: timed(build)


def copy_floor(live: dict[str, torch.Tensor], models: int) -> Callable[[], Times]:
    """A copy that moves as many bytes as reading every model once and writing the result once."""
    like = next(iter(live.values()))
    count = sum(tensor.numel() for tensor in live.values()) * (models + 1) // 2
    source, target = torch.ones(count, dtype=like.dtype), torch.zeros(count, dtype=like.dtype)
    return lambda: timed(lambda: target.copy_(source))


def measure(models: ModelSet, live: dict[str, torch.Tensor], method: str, repeats: int) -> dict[str, list[Times]]:
    """Wall and CPU seconds of every mode, the first build apart."""
    floor = copy_floor(live, len(models.names) + 1)
    native, plain = Ours(models, live, method, "native"), Ours(models, live, method, "torch")
    seconds: dict[str, list[Times]] = {"first build": [native.build()], "copy": [], "build": [], "torch": []}
    plain.build()
    floor()
    for _ in range(repeats):
        seconds["copy"].append(floor())
        seconds["build"].append(native.build())
        if len(seconds["torch"]) < 3:
            seconds["torch"].append(plain.build())
    theirs = mergekit_build(models, live, method)
    if theirs is not None:
        seconds["mergekit"] = [theirs()]
        if seconds["mergekit"][0][0] < 20:
            seconds["mergekit"] += [theirs(), theirs()]
    return seconds


def report(method: str, seconds: Mapping[str, list[Times]]) -> None:
    """One line: the floor in seconds, and how many times it each mode takes; CPU seconds where threads are one."""

    def median(mode: str, which: int) -> float:
        return statistics.median(times[which] for times in seconds[mode])

    floor, build = median("copy", 0), median("build", 0)
    cells = [f"{floor:9.4f}", f"{build:9.4f}", f"{build / floor:8.2f}", f"{median('first build', 0) / floor:8.1f}"]
    cells.append(f"{median('torch', 0) / floor:8.1f}")
    if "mergekit" in seconds:
        theirs = median("mergekit", 0)
        cpu = median("mergekit", 1) / max(median("build", 1), 1e-9)
        cells += [f"{theirs:10.2f}", f"{theirs / build:8.0f}", f"{cpu:8.0f}"]
    else:
        cells.append("  mergekit: not installed, or lacks the method")
    print(f"{method:<18}{''.join(cells)}", flush=True)


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description="How long one candidate takes to build.")
    parser.add_argument("--parameters", type=float, default=1e8)
    parser.add_argument("--experts", type=int, default=3)
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="bfloat16")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--methods", default=",".join(THEIRS))
    settings = parser.parse_args()
    torch.set_num_threads(settings.threads)
    with tempfile.TemporaryDirectory() as folder:
        made = build_random(Path(folder), settings.parameters, settings.experts, settings.dtype)
        models = ModelSet.open(made.base, made.experts)
        dtype = getattr(torch, settings.dtype)
        live = {name: torch.zeros(models.base.entry(name).shape, dtype=dtype) for name in models.base.names}
        print(
            f"{made.parameters / 1e6:.0f} M parameters, {settings.experts} experts, {settings.dtype}, "
            f"{settings.threads} threads; medians of {settings.repeats}, wall seconds"
        )
        print(
            f"{'method':<18}{'floor s':>9}{'build s':>9}{'× floor':>8}{'first ×':>8}{'torch ×':>8}"
            f"{'mergekit s':>10}{'÷ wall':>8}{'÷ cpu':>8}"
        )
        for method in settings.methods.split(","):
            report(method, measure(models, live, method, settings.repeats))


if __name__ == "__main__":
    main()
