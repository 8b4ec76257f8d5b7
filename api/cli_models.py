"""Commands on models rather than studies: measured, compressed, written as a LoRA, reordered, joined."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.filesize import decimal

from api.output import print_json


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("measure")(measure)
    app.command("compress")(compress)
    app.command("align")(align)
    app.command("stitch")(stitch)


def measure(
    study: Annotated[Path, typer.Argument(help="The study file.")],
    device: Annotated[str, typer.Option(help="Where to compute: cpu, cuda:0 …")] = "cpu",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document instead of a table.")] = False,
) -> None:
    """Measure what a study's methods want to know of its experts on its documents; a search does so by itself."""
    from api.measuring import measured
    from api.report import artefacts_table
    from api.run import require_devices
    from evaluation.artefacts.contract import Measurement
    from merging.artefacts.request import Request
    from search.study import load_study

    require_devices((device,))
    console = Console(stderr=True)

    def begun(request: Request, measurement: Measurement) -> None:
        of = request.expert or "all models"
        times = f"{measurement.rounds} times" if measurement.rounds > 1 else "once"
        takes = f"{decimal(measurement.need)} beside the model, reads the texts {times}"
        console.print(f"measuring {request.kind} of {of}: {takes}", highlight=False)

    rows = measured(load_study(study), device, begun)
    if as_json:
        print_json(rows)
    else:
        Console().print(artefacts_table(rows))


def compress(
    expert: Annotated[Path, typer.Argument(help="The fine-tuned model, or a LoRA.")],
    base: Annotated[Path, typer.Option("--base", help="What it was tuned from.")],
    codec: Annotated[str, typer.Option("--codec", help="bitdelta, compeft, sparse, lowrank, xor, or lora for peft.")],
    to: Annotated[Path, typer.Option("--to", help="The folder to create.")],
    settings: Annotated[list[str] | None, typer.Option("--set", help="name=value of a codec's setting.")] = None,
) -> None:
    """Write an expert as a small delta of its base: an expert of any study of that base, as it was before."""
    from api.compressing import compress_expert

    said = compress_expert(expert, base, to, codec, settings or [])
    Console(stderr=True).print(said, highlight=False, soft_wrap=True)


def align(
    model: Annotated[Path, typer.Argument(help="The model to bring into another order; it computes the same.")],
    like: Annotated[Path, typer.Option("--like", help="The model whose order it gets: of the same shape.")],
    to: Annotated[Path, typer.Option("--to", help="The folder to create.")],
    parts: Annotated[
        list[str] | None, typer.Option("--part", help="mlp, attention, residual, or all; may be given again.")
    ] = None,
    texts: Annotated[
        Path | None, typer.Option(help="Match what units do on these texts, .txt or .jsonl, not their weights.")
    ] = None,
    polish: Annotated[bool, typer.Option("--polish", help="After --texts, go on from there by weights.")] = False,
    rotate: Annotated[
        bool, typer.Option("--rotate", help="Rotate the residual stream as --texts say, then match by weights.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Of the order in which units are matched by weights.")] = 0,
    device: Annotated[str, typer.Option(help="Where the texts are read: cpu, cuda:0 …")] = "cpu",
) -> None:
    """Bring a model that was trained from another start into the order of another one's units, before a merge."""
    from api.aligning import Way, align_model
    from api.run import require_devices

    require_devices((device,))
    said = align_model(model, like, to, tuple(parts or ()), Way(texts, polish, seed, device, rotate))
    Console(stderr=True).print(said, highlight=False, soft_wrap=True)


def stitch(
    front: Annotated[Path, typer.Argument(help="The model that gives the embedding and the first layers.")],
    back: Annotated[Path, typer.Argument(help="The model that gives the other layers and the head.")],
    after: Annotated[int, typer.Option("--after", help="How many layers are the first model's.")],
    texts: Annotated[Path, typer.Option(help="What both read to find how they fit together: .txt or .jsonl.")],
    to: Annotated[Path, typer.Option("--to", help="The folder to create.")],
    device: Annotated[str, typer.Option(help="Where the texts are read: cpu, cuda:0 …")] = "cpu",
) -> None:
    """Join the first layers of one model to the other layers of another, whatever starts they were trained from."""
    from api.output import screen
    from api.run import require_devices
    from api.stitching import shortage, stitch_models, stitch_table

    require_devices((device,))
    joined = stitch_models(front, back, after, texts, to, device)
    screen().print(stitch_table(joined))
    console = Console(stderr=True)
    if warning := shortage(joined):
        console.print(f"warning: {warning}", highlight=False, soft_wrap=True)
    console.print(f"joined model in {to}", highlight=False, soft_wrap=True)
