"""`mergesearch demo`: the main job on real small models that are trained on the spot."""

from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from api.run import run_file
from zoo.make import Zoo, build
from zoo.study import write_study

_UNSAID = {"methods": None, "layers": None}
_LIMITS = {"trials": 60}


def run_demo(folder: Path, *, as_json: bool) -> None:
    """Train the zoo, search it, print the verdict, export the winner; run again it goes on or shows the result.

    Args:
        folder: where the models, the study file, the database and the export go.
    """
    zoo = _train(folder / "zoo", Console(stderr=True))
    # what a user writes who leaves the search to us
    study = write_study(zoo, folder / "study.yaml", name="zoo-demo", space=_UNSAID, search={"strategy": None} | _LIMITS)
    run_file(study, folder / "winner", export=True, devices=(), home=folder / "home", as_json=as_json)


def _train(folder: Path, console: Console) -> Zoo:
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
    with Progress(*columns, TimeElapsedColumn(), console=console, disable=not console.is_terminal) as bars:
        tasks: dict[str, TaskID] = {}

        def show(stage: str, step: int, steps: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=steps)
                if not console.is_terminal:
                    console.print(f"training the zoo: {stage}", markup=False, highlight=False)
            bars.update(tasks[stage], completed=step)

        return build(folder, progress=show)
