"""The commands of the service: its processes, its database and its keys. Settings come from the environment."""

import time
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from api.output import print_json, screen

if TYPE_CHECKING:
    from db.store import Store

keys = typer.Typer(help="API keys: create, list, revoke.", no_args_is_help=True, rich_markup_mode=None)


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    for command in (serve, controller, worker, migrate, dashboard):
        app.command()(command)
    app.add_typer(keys, name="keys")


def serve(
    host: Annotated[
        str | None, typer.Option(help="Address to listen on. [default: MERGESEARCH_HOST or 127.0.0.1]")
    ] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on. [default: MERGESEARCH_PORT or 8000]")] = None,
) -> None:
    """Answer the REST API and show the dashboard."""
    from api.service.serve import serve as run
    from api.service.settings import load_settings

    run(load_settings(host=host, port=port))


def controller() -> None:
    """Lead the studies of a service: propose, dispatch, tell, judge. Any number may run."""
    from api.service.controller import run_controller
    from api.service.settings import load_settings

    run_controller(load_settings())


def worker(
    device: Annotated[
        list[str] | None,
        typer.Option(help="`cpu` or `cuda:N`, may be repeated: one process each. [default: every GPU, else the CPU]"),
    ] = None,
    pool: Annotated[
        list[str] | None, typer.Option(help="Pool whose studies are scored, may be repeated. [default: default]")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads of each process. [default: the cores, shared out]")
    ] = None,
    rehearsal: Annotated[
        bool, typer.Option("--rehearsal", help="Score by a formula, without models: to try an installation out.")
    ] = False,
) -> None:
    """Build and score candidates for a service, one process a device."""
    from api.service.logs import set_up_logs
    from api.service.settings import load_settings
    from db.records import DEFAULT_POOL
    from workers.rehearsal import Rehearsal
    from workers.settings import WorkerServiceSettings
    from workers.supervisor import run_workers

    settings = load_settings()
    told = WorkerServiceSettings(
        database_url=settings.database_url,
        redis_url=settings.redis_url,
        pools=tuple(pool or (DEFAULT_POOL,)),
        lease_seconds=settings.lease_seconds,
        drain_seconds=settings.drain_seconds,
        threads=threads,
        set_up_logs=partial(set_up_logs, settings.log_format),
        rehearsal=Rehearsal() if rehearsal else None,
    )
    raise typer.Exit(run_workers(told, tuple(device or ())))


def migrate() -> None:
    """Bring the service's database to this version, from nothing too; safe to run at any time."""
    from api.service.settings import load_settings
    from db.schema import head
    from db.store import open_store
    from search.mirror import mirror_url, prepare_mirror

    store = open_store(load_settings().database_url)
    prepare_mirror(mirror_url(store.url))
    store.close()
    Console(stderr=True).print(f"the database is at version {head()}", highlight=False)


def dashboard(
    home: Annotated[
        Path, typer.Option("--home", envvar="MERGESEARCH_HOME", help="Folder of `mergesearch run`.")
    ] = Path("mergesearch-home"),
    port: Annotated[int, typer.Option(help="Port on 127.0.0.1.")] = 8080,
) -> None:
    """Show the studies of `mergesearch run` in the Optuna dashboard, on this machine only, read-only."""
    from api.service.dashboard import show_dashboard

    show_dashboard(home, port)


@keys.command("create")
def create_key(
    name: Annotated[str, typer.Argument(help="Whose it is, or what for.")],
    scope: Annotated[
        list[str] | None, typer.Option(help="`read`, `run` or `admin`; each includes those before. [default: read]")
    ] = None,
    days: Annotated[float | None, typer.Option(min=0, help="How long it is valid. [default: for ever]")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Create an API key and print it: it is shown this once."""
    store = _store()
    expires = None if days is None else time.time() + days * 86_400
    key, secret = store.keys.create(name, tuple(scope or ("read",)), expires)
    if as_json:
        print_json({"name": key.name, "prefix": key.prefix, "scopes": list(key.scopes), "key": secret})
    else:
        print(secret)
    store.close()


@keys.command("list")
def list_keys(as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False) -> None:
    """List the API keys; their secrets are not kept."""
    store = _store()
    found = store.keys.all()
    store.close()
    if as_json:
        print_json([vars(key) for key in found])
        return
    table = Table()
    for title in ("prefix", "name", "scopes", "created", "expires", "last used", "state"):
        table.add_column(title)
    for key in found:
        over = key.expires_at is not None and key.expires_at <= time.time()
        state = "revoked" if key.revoked_at else "expired" if over else "valid"
        times = map(_day, (key.created_at, key.expires_at, key.last_used_at))
        table.add_row(key.prefix, key.name, " ".join(key.scopes), *times, state)
    screen().print(table, markup=False)


@keys.command("revoke")
def revoke_key(prefix: Annotated[str, typer.Argument(help="The key's prefix, as `keys list` shows it.")]) -> None:
    """End an API key at once."""
    store = _store()
    key = store.keys.revoke(prefix)
    store.close()
    Console(stderr=True).print(f"key {key.prefix} ({key.name}) is revoked", markup=False, highlight=False)


def _store() -> "Store":
    from api.service.settings import load_settings
    from db.store import connect_store

    return connect_store(load_settings().database_url)


def _day(moment: float | None) -> str:
    return "" if moment is None else f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%d %H:%M}"
