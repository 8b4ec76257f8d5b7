"""`mergesearch widen`: the average of aligned models, in which units that match badly stay apart."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("widen")(widen)


def widen(
    experts: Annotated[list[Path], typer.Argument(help="Two or more models of one shape, aligned with the first.")],
    to: Annotated[Path, typer.Option("--to", help="The folder to create.")],
    ratio: Annotated[float, typer.Option(help="Share of each MLP's units that stay apart, from 0 to 1.")] = 0.25,
    weights: Annotated[
        list[float] | None, typer.Option("--weight", help="One an expert, in their order; all the same unless given.")
    ] = None,
) -> None:
    """Average aligned models into one with wider MLPs: units that have no match in the others stay apart."""
    from merging.checkpoint import Checkpoint
    from merging.permuting.wider import widen as widened

    opened = [Checkpoint(path, "EXPERT") for path in experts]
    done = widened(opened, to.absolute(), ratio=ratio, weights=weights)
    said = f"average of {len(opened)} models in {to}: {done.before} hidden units a layer, now {done.after}"
    Console(stderr=True).print(said, highlight=False, soft_wrap=True)
