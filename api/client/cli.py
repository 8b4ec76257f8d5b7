"""The commands that a service alone has, and what the others do when they are to ask one."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import typer

from api.client import LOCAL_SERVER
from api.forms import Form

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of tables.")]
Name = Annotated[str, typer.Argument(help="The study's name.")]
Server = Annotated[
    str,
    typer.Option("--server", envvar="MERGESEARCH_SERVER", help="URL of the service; MERGESEARCH_KEY has the API key."),
]
MaybeServer = Annotated[
    str | None,
    typer.Option(
        "--server",
        envvar="MERGESEARCH_SERVER",
        help="URL of a service to ask instead of --home; MERGESEARCH_KEY has the API key.",
    ),
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (submit, pause, resume, cancel):
        app.command()(command)


def submit(
    study: Annotated[Path, typer.Argument(help="The study file (YAML or JSON).")],
    follow: Annotated[bool, typer.Option("--follow", help="Show its progress until the verdict.")] = False,
    server: Server = LOCAL_SERVER,
    as_json: AsJson = False,
) -> None:
    """Submit a study to a service, which checks it in full before it creates anything.

    Folders that lie beside the study file are sent as absolute paths; others are looked for by the service.
    """
    with _interruptible():
        from api.client.commands import submit_file
        from api.client.remote import connect

        with connect(server) as remote:
            submit_file(study, remote, follow=follow, as_json=as_json)


def pause(study: Name, server: Server = LOCAL_SERVER, as_json: AsJson = False) -> None:
    """Let a study of a service begin nothing more; what is being scored is scored to its end."""
    _change(study, "pause", server, as_json=as_json)


def resume(study: Name, server: Server = LOCAL_SERVER, as_json: AsJson = False) -> None:
    """Let a study of a service go on after a pause, or after a failure whose cause is mended."""
    _change(study, "resume", server, as_json=as_json)


def cancel(study: Name, server: Server = LOCAL_SERVER, as_json: AsJson = False) -> None:
    """End a study of a service now, for good; what was scored stays."""
    _change(study, "cancel", server, as_json=as_json)


def remote_status(study: str | None, server: str, *, as_json: bool) -> None:
    """`status --server`."""
    from api.client.commands import show_remote_status
    from api.client.remote import connect

    with connect(server) as remote:
        show_remote_status(study, remote, as_json=as_json)


def remote_trials(study: str, server: str, *, as_json: bool) -> None:
    """`trials --server`."""
    from api.client.commands import show_remote_trials
    from api.client.remote import connect

    with connect(server) as remote:
        show_remote_trials(study, remote, as_json=as_json)


def remote_export(study: str, trial: int | None, to: Path, server: str, form: Form) -> None:
    """`export --server`."""
    with _interruptible():
        from api.client.commands import export_remote
        from api.client.remote import connect

        with connect(server) as remote:
            export_remote(study, trial, to, remote, form)


def _change(study: str, what: Literal["pause", "resume", "cancel"], server: str, *, as_json: bool) -> None:
    from api.client.commands import change
    from api.client.remote import connect

    with connect(server) as remote:
        change(study, what, remote, as_json=as_json)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Ends an interrupted command as the others end; what it leaves was said where that is known."""
    try:
        yield
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
