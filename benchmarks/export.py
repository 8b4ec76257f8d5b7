"""What an export costs: seconds and memory of `mergesearch merge`, beside `mergekit-yaml` on the same configuration.

    python -m benchmarks.export [--parameters 5e8] [--experts 3] [--methods task_arithmetic,ties]
                                [--mergekit PATH/TO/mergekit-yaml] [--repeats 3]

Makes random Llama-shaped models in bfloat16 in a temporary folder, and runs both command lines, in turn, in processes
of their own: process start and imports are part of it, page caches are warm. Memory is the peak of what the process
holds for itself (RssAnon), and of all that it has mapped (VmHWM, which counts the mapped input files). The bound is
three times the largest tensor times the number of models, plus 300 MB.
"""

import argparse
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import yaml

from merging.models import ModelSet
from zoo.random import RandomModels, build_random

MEGA = 1 << 20


@dataclass(frozen=True)
class Run:
    """One run: wall and CPU seconds, peaks in bytes."""

    wall: float
    cpu: float
    anonymous: int
    resident: int


def watched(command: list[str]) -> Run:
    """Runs a command to its end, looking at its memory a hundred times a second."""
    start, before = time.perf_counter(), os.times()
    anonymous = resident = 0
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        while process.poll() is None:
            for line in _status(process.pid):
                name, _, value = line.partition(":")
                if name == "RssAnon":
                    anonymous = max(anonymous, int(value.split()[0]) << 10)
                elif name == "VmHWM":
                    resident = max(resident, int(value.split()[0]) << 10)
            time.sleep(0.01)
        errors = process.stderr.read().decode() if process.stderr else ""
    after = os.times()
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{errors}")
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return Run(time.perf_counter() - start, cpu, anonymous, resident)


def _status(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:  # it has just ended
        return []


def configuration(made: RandomModels, method: str) -> str:
    """The merge, as mergekit writes it; both command lines read it."""
    density = {} if method == "task_arithmetic" else {"density": 0.5}
    experts = [{"model": str(p), "parameters": {"weight": 0.3, **density}} for p in made.experts.values()]
    content = {"merge_method": method, "base_model": str(made.base), "dtype": "bfloat16", "models": experts}
    return yaml.safe_dump(content)


def bound(made: RandomModels) -> int:
    """The memory that an export may take."""
    models = ModelSet.open(made.base, made.experts)
    largest = max(math.prod(e.shape) * e.dtype.itemsize for e in map(models.base.entry, models.base.names))
    return 3 * largest * (len(made.experts) + 1) + 300 * MEGA


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description="What an export costs.")
    parser.add_argument("--parameters", type=float, default=5e8)
    parser.add_argument("--experts", type=int, default=3)
    parser.add_argument("--methods", default="task_arithmetic,ties")
    parser.add_argument("--mergekit", default=shutil.which("mergekit-yaml"))
    parser.add_argument("--repeats", type=int, default=3)
    settings = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        made = build_random(root / "models", settings.parameters, settings.experts, "bfloat16")
        print(
            f"{made.parameters / 1e6:.0f} M parameters, {settings.experts} experts; bound {bound(made) / MEGA:.0f} MB"
        )
        print(f"{'method':<18}{'command':<14}{'wall s':>8}{'CPU s':>8}{'anonymous MB':>14}{'resident MB':>13}")
        for method in settings.methods.split(","):
            (root / "merge.yaml").write_text(configuration(made, method))
            ours = [str(Path(sys.executable).with_name("mergesearch")), "merge", str(root / "merge.yaml"), "--to"]
            commands = {"mergesearch": [*ours, str(root / "out")]}
            if settings.mergekit:
                theirs = [settings.mergekit, str(root / "merge.yaml"), str(root / "out"), "--no-copy-tokenizer"]
                commands["mergekit"] = theirs
            runs: dict[str, list[Run]] = {name: [] for name in commands}
            for _ in range(settings.repeats):
                for name, command in commands.items():
                    runs[name].append(watched(command))
                    shutil.rmtree(root / "out")
            for name, found in runs.items():
                wall, cpu = (statistics.median(getattr(run, field) for run in found) for field in ("wall", "cpu"))
                peaks = [max(getattr(run, field) for run in found) / MEGA for field in ("anonymous", "resident")]
                print(f"{method:<18}{name:<14}{wall:>8.2f}{cpu:>8.2f}{peaks[0]:>14.0f}{peaks[1]:>13.0f}", flush=True)


if __name__ == "__main__":
    main()
