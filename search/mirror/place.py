"""Where the copy lives, and Optuna's storage over it. Optuna's tables are never in one place with ours: their
migrations would break each other.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import RDBStorage

from db.neighbour import Neighbour, alone, make_schema, neighbour_url

WSGI = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


def mirror_url(store_url: str, home: Path | None = None) -> str:
    """The URL of the copy for the store at that URL, fit for `optuna.load_study` and `optuna-dashboard`.

    A SQLite store has it in the file `optuna.db` beside it (or in `home`), a PostgreSQL store in the schema
    `optuna` of the same database.
    """
    return neighbour_url(store_url, home)


def prepare_mirror(url: str) -> None:
    """Make Optuna's tables, or bring them to the version of the installed Optuna; safe to run at any time."""
    with alone(url):
        make_schema(url)
        storage = _storage(url, making=True)
        try:
            version, known = storage.get_current_version(), storage.get_all_versions()
            if version != storage.get_head_version() and version in known:
                storage.upgrade()
        finally:
            storage.engine.dispose()


def open_mirror(url: str) -> RDBStorage:
    """Optuna's storage over the copy, made first if need be.

    Raises:
        RuntimeError: its tables are of another version than the installed Optuna's; `prepare_mirror` helps.
    """
    neighbour = Neighbour(url)
    try:
        made = neighbour.version() is not None
    finally:
        neighbour.close()
    if not made:
        prepare_mirror(url)
    return _storage(url, making=False)


def dashboard(url: str) -> WSGI:
    """The Optuna dashboard over the copy, as a WSGI application; it takes seconds to load, and can write."""
    import optuna_dashboard  # with scikit-learn behind it: only for whom it serves

    # ended trials are read once: a page that is looked at asks for all of them every ten seconds
    app: WSGI = optuna_dashboard.wsgi(optuna.storages.get_storage(open_mirror(url)))
    return app


def _storage(url: str, *, making: bool) -> RDBStorage:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sqlite = url.startswith("sqlite")
    arguments: dict[str, Any] = {"connect_args": {"timeout": 30}} if sqlite else {"pool_pre_ping": True}
    literal = url.replace("{", "{{").replace("}", "}}")  # Optuna formats the URL
    return RDBStorage(literal, engine_kwargs=arguments, skip_compatibility_check=making, skip_table_creation=not making)
