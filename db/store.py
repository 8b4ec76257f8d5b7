"""The store: everything remembered, behind one object."""

from pathlib import Path

from sqlalchemy import Engine

from db.evaluations import Evaluations
from db.schema import upgrade
from db.session import make_engine, prepare_home, sqlite_url
from db.studies import Fingerprints, Studies
from db.trials import Trials


class Store:
    """Studies, trials, evaluations and fingerprints of one database, whose schema is up to date."""

    def __init__(self, engine: Engine) -> None:
        self.studies = Studies(engine)
        self.trials = Trials(engine)
        self.evaluations = Evaluations(engine)
        self.fingerprints = Fingerprints(engine)
        self._engine = engine

    @property
    def url(self) -> str:
        """The database's URL, for the processes that open it themselves."""
        return self._engine.url.render_as_string(hide_password=False)

    def close(self) -> None:
        """Give the connections back."""
        self._engine.dispose()


def open_store(url: str) -> Store:
    """The store at that URL, brought to the code's version.

    Raises:
        Conflict: the database is newer than the code.
        BrokenDatabase: it cannot be used.
    """
    engine = make_engine(url)
    try:
        upgrade(engine)
    except BaseException:
        engine.dispose()
        raise
    return Store(engine)


FILE = "mergesearch.db"


def find_home(home: Path) -> Store | None:
    """The store in `home`, or None if there is none; makes nothing.

    Raises:
        Conflict, BrokenDatabase: as `open_store`.
    """
    return open_store(sqlite_url(home / FILE)) if (home / FILE).exists() else None


def open_home(home: Path) -> Store:
    """The store of the embedded default: one SQLite file in `home`, made if need be.

    Raises:
        OutputError: `home` cannot be made or written.
        Conflict, BrokenDatabase: as `open_store`.
    """
    return open_store(sqlite_url(prepare_home(home) / FILE))
