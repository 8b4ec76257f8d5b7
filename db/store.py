"""The store: everything remembered, behind one object."""

from pathlib import Path

from sqlalchemy import Engine

from db.evaluations import Evaluations
from db.events import Events
from db.fingerprints import Fingerprints
from db.jobs import Jobs
from db.keys import Keys
from db.leads import Leads
from db.metrics import Metrics
from db.processes import Processes
from db.schema import require_head, upgrade
from db.session import blaming_the_database, make_engine, prepare_home, reader, sqlite_url
from db.studies import Studies
from db.trials import Trials
from db.wakeups import Wakeups


class Store:
    """Everything in one database, whose schema is up to date."""

    def __init__(self, engine: Engine) -> None:
        self.studies = Studies(engine)
        self.leads = Leads(engine)
        self.trials = Trials(engine)
        self.evaluations = Evaluations(engine)
        self.events = Events(engine)
        self.jobs = Jobs(engine)
        self.keys = Keys(engine)
        self.processes = Processes(engine)
        self.metrics = Metrics(engine)
        self.fingerprints = Fingerprints(engine)
        self._engine = engine

    @property
    def url(self) -> str:
        """The database's URL, for the processes that open it themselves."""
        return self._engine.url.render_as_string(hide_password=False)

    def wakeups(self, channel: str) -> Wakeups:
        """A waiter on a channel of `db.wakeups`; close it in the end."""
        return Wakeups(self._engine, channel)

    def check(self) -> None:
        """See that the database answers and has the code's version.

        Raises:
            SchemaBehind, Conflict, BrokenDatabase: as `connect_store`.
        """
        with blaming_the_database(self._engine), reader(self._engine).connect() as connection:
            connection.exec_driver_sql("SELECT 1")
        require_head(self._engine)

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


def connect_store(url: str) -> Store:
    """The store at that URL as it is: a service's processes change no schema while others work.

    Raises:
        SchemaBehind: it must be migrated first.
        Conflict: the database is newer than the code.
        BrokenDatabase: it cannot be used.
    """
    engine = make_engine(url)
    try:
        require_head(engine)
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
