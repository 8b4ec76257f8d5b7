"""`python -m zoo FOLDER`: builds a zoo and writes its study file, with a plain line of progress."""

import argparse
import sys
from pathlib import Path

from zoo.make import build
from zoo.presets import PRESETS
from zoo.study import write_study

_STUDY = "study.yaml"


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m zoo", description="Trains a zoo of small models.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--preset", choices=tuple(PRESETS), default="tiny")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args(arguments)
    zoo = build(chosen.folder, chosen.preset, chosen.seed, _show)
    study = zoo.folder / _STUDY
    if not study.exists():
        write_study(zoo, study)
    sys.stdout.write(f"zoo {zoo.preset} (seed {zoo.seed}) in {zoo.folder}\n")
    return 0


def _show(stage: str, step: int, steps: int) -> None:
    if step == steps or step % 10 == 0:
        sys.stderr.write(f"\r{stage}: {step}/{steps}" + "\n" * (step == steps))
        sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
