"""The command line. Messages and tables for people go to stderr and stdout as the case may be; `--json` prints
one JSON document on stdout and nothing else there.

Exit codes: 0 done; 1 it ran and failed; 2 what was asked cannot work (bad file, unknown name, output exists);
130 interrupted (run the same command again to go on).
"""

import json
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer
from rich.console import Console

from api import cli_models, cli_service, cli_widen, complementary
from api.client import cli as client
from api.client.cli import MaybeServer
from api.output import print_json, screen
from merging.errors import Conflict, InvalidInput, MergesearchError, NotFound
from workers.garbage import collect_rarely

app = typer.Typer(
    name="mergesearch",
    help="Finds the best merge of a set of fine-tuned checkpoints: searches recipes, scores each with lm-eval, "
    "judges the winner on documents the search never saw, and exports it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Home = Annotated[
    Path,
    typer.Option(
        "--home", envvar="MERGESEARCH_HOME", help="Folder that holds the database, logs and exports of all studies."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of tables.")]
DEFAULT_HOME = Path("mergesearch-home")


def main() -> None:
    """The `mergesearch` command."""
    signal.signal(signal.SIGTERM, _interrupt)  # ends workers and frees leases as Ctrl-C does
    collect_rarely()
    try:
        app(standalone_mode=True)
    except (InvalidInput, NotFound, Conflict) as error:
        _complain(str(error))
        sys.exit(2)
    except MergesearchError as error:
        _complain(str(error))
        sys.exit(1)


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


@contextmanager
def _can_go_on() -> Iterator[None]:
    """Turns an interruption into a word of advice."""
    try:
        yield
    except KeyboardInterrupt:
        _complain("interrupted; run the same command again to go on")
        raise typer.Exit(130) from None


def _complain(message: str) -> None:
    Console(stderr=True).print(f"error: {message}", style="red", markup=False, highlight=False, soft_wrap=True)


def _names_home(context: typer.Context) -> bool:
    """Whether the command itself names a home, which then wins over a service that the environment names."""
    named = {name for name in ("home", "server") if _source(context, name) == "COMMANDLINE"}
    return named == {"home"}


def _source(context: typer.Context, name: str) -> str:
    source = context.get_parameter_source(name)
    return source.name if source is not None else ""


@app.command()
def run(
    study: Annotated[Path, typer.Argument(help="The study file (YAML or JSON).")],
    to: Annotated[
        Path | None, typer.Option("--to", help="Where to export the winner. [default: HOME/exports/STUDY NAME]")
    ] = None,
    export: Annotated[bool, typer.Option(help="Export the winner at the end.")] = True,
    device: Annotated[
        list[str] | None,
        typer.Option(help="Device of one worker, may be repeated. [default: every GPU, else the CPU]"),
    ] = None,
    home: Home = DEFAULT_HOME,
    as_json: AsJson = False,
) -> None:
    """Run a study on this machine, from file to verdict and exported winner.

    If the run is stopped or killed, the same command goes on where it was.
    """
    with _can_go_on():
        from api.run import run_file

        run_file(study, to, export=export, devices=tuple(device or ()), home=home, as_json=as_json)


@app.command()
def demo(
    folder: Annotated[Path, typer.Option(help="Where everything goes: models, study, results.")] = Path(
        "mergesearch-demo"
    ),
    as_json: AsJson = False,
) -> None:
    """Train a small zoo of models on the spot, search their best merge, print the verdict, export the winner."""
    with _can_go_on():
        from api.demo import run_demo

        run_demo(folder, as_json=as_json)


@app.command()
def status(
    context: typer.Context,
    study: Annotated[str | None, typer.Argument(help="A study's name; without it all are listed.")] = None,
    home: Home = DEFAULT_HOME,
    server: MaybeServer = None,
    as_json: AsJson = False,
) -> None:
    """How far studies are, and the verdict of those that are finished."""
    if server is not None and not _names_home(context):
        client.remote_status(study, server, as_json=as_json)
        return
    from api.show import show_status

    show_status(study, home, as_json=as_json)


@app.command()
def trials(
    context: typer.Context,
    study: Annotated[str, typer.Argument(help="The study's name.")],
    home: Home = DEFAULT_HOME,
    server: MaybeServer = None,
    as_json: AsJson = False,
) -> None:
    """The trials of a study; with --json also their parameters, recipes and task scores."""
    if server is not None and not _names_home(context):
        client.remote_trials(study, server, as_json=as_json)
        return
    from api.show import show_trials

    show_trials(study, home, as_json=as_json)


@app.command("export")
def export_command(
    context: typer.Context,
    study: Annotated[str, typer.Argument(help="The study's name.")],
    to: Annotated[Path, typer.Option("--to", help="The folder to create.")],
    trial: Annotated[int | None, typer.Option(help="Number of the trial. [default: the winner]")] = None,
    form: Annotated[str, typer.Option("--as", help="full, lora (for peft), or a codec of `compress`.")] = "full",
    settings: Annotated[list[str] | None, typer.Option("--set", help="name=value of the form's setting.")] = None,
    home: Home = DEFAULT_HOME,
    server: MaybeServer = None,
) -> None:
    """Write a study's winner (or another trial) as a checkpoint that transformers loads, or as what it changes."""
    from api.forms import Form, parsed

    wanted = Form(form, parsed(settings or []))
    if server is not None and not _names_home(context):
        client.remote_export(study, trial, to, server, wanted)
        return
    from api.choice import chosen_trial
    from api.show import open_existing
    from api.winner import export_trial

    store = open_existing(home)
    found = store.studies.get(study)
    chosen = chosen_trial(store, found, trial)
    said = export_trial(store, found, chosen, to, form=wanted)
    Console(stderr=True).print(f"trial {chosen.number} ({chosen.origin}): {said}", highlight=False, soft_wrap=True)


@app.command()
def merge(
    recipe: Annotated[Path, typer.Argument(help="A recipe or a mergekit config; model folders relative to it.")],
    to: Annotated[Path | None, typer.Option("--to", help="The folder to create.")] = None,
    as_mergekit: Annotated[bool, typer.Option("--as-mergekit", help="Print the mergekit config instead.")] = False,
    as_recipe: Annotated[bool, typer.Option("--as-recipe", help="Print the recipe, as JSON, instead.")] = False,
    form: Annotated[str, typer.Option("--as", help="full, lora (for peft), or a codec of `compress`.")] = "full",
    settings: Annotated[list[str] | None, typer.Option("--set", help="name=value of the form's setting.")] = None,
) -> None:
    """Build one recipe, ours or mergekit's, straight to disk; or print it in the other's words."""
    from api.build import as_mergekit as written
    from api.build import build_file, load_recipe
    from api.forms import parsed

    if (to is not None) + as_mergekit + as_recipe != 1:
        raise typer.BadParameter("give one of --to FOLDER, --as-mergekit and --as-recipe")
    if as_mergekit:
        typer.echo(written(load_recipe(recipe)), nl=False)
    elif as_recipe:
        typer.echo(load_recipe(recipe).to_json())
    elif to is not None:
        said = build_file(recipe, to, form, parsed(settings or []))
        Console(stderr=True).print(said, highlight=False, soft_wrap=True)


@app.command()
def estimate(
    models: Annotated[list[Path], typer.Argument(help="Three or more merged LoRA fine-tunes of one unknown base.")],
    to: Annotated[Path, typer.Option("--to", help="The folder to create.")],
    rank: Annotated[int, typer.Option(min=1, help="The largest rank of the fine-tunes.")] = 16,
    device: Annotated[str, typer.Option(help="Where to compute: cpu, cuda:0 …")] = "cpu",
) -> None:
    """Estimate the common base of models whose base is missing, from what their low-rank changes leave alone."""
    from api.run import require_devices
    from merging.detuning import RECORD, estimate_base

    require_devices((device,))
    console = Console(stderr=True)
    estimate_base(models, to.absolute(), rank=rank, device=device, progress=lambda name: console.log(name))
    left = json.loads((to / RECORD).read_text())["unexplained"]
    console.print(
        f"estimated base in {to}; of the worst matrix {left:.2g} of the changes is unexplained", highlight=False
    )


@app.command()
def methods(
    as_json: AsJson = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="The page docs/methods.md.")] = False,
) -> None:
    """Every merge method: formula, parameters and ranges, needs, cost, source."""
    from api.methods_page import page
    from api.report import methods_table
    from merging.catalog import CATALOG

    if markdown and as_json:
        raise typer.BadParameter("give one of --json and --markdown")
    if markdown:
        typer.echo(page(), nl=False)
    elif as_json:
        print_json([asdict(row) for row in CATALOG.values()])
    else:
        screen().print(methods_table())


@app.command()
def doctor(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(help="A study file to check as well; with --models the folders of the base and the experts."),
    ] = None,
    models: Annotated[
        bool, typer.Option("--models", help="Measure the models named, BASE EXPERT..., instead of checking.")
    ] = False,
    study: Annotated[Path | None, typer.Option("--study", help="Measure the models that this study names.")] = None,
    html: Annotated[Path | None, typer.Option("--html", help="Also write what was measured as a page.")] = None,
    home: Home = DEFAULT_HOME,
    as_json: AsJson = False,
) -> None:
    """Check the installation, devices, disk and database, and a study file without running it; or the models' weights.

    With --models or --study the weights are read once and compared: how the experts differ from the base and from
    each other, and what speaks against merging them.
    """
    from api.doctor import run_checks, run_models

    given = tuple(paths or ())
    sound = (
        run_models(given, study, html, as_json=as_json)
        if models or study or html
        else run_checks(given, home, as_json=as_json)
    )
    if not sound:
        raise typer.Exit(2)


client.register(app)
cli_models.register(app)
cli_widen.register(app)
complementary.register(app)
cli_service.register(app)

if __name__ == "__main__":
    main()
