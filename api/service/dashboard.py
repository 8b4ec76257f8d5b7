"""`mergesearch dashboard`: the studies of one home in the Optuna dashboard, on this machine only, read-only."""

from pathlib import Path

import uvicorn
from rich.console import Console

from api.rest.dashboard import make_local_dashboard
from db.session import sqlite_url
from db.store import FILE
from merging.errors import NotFound
from search.mirror import mirror_url


def show_dashboard(home: Path, port: int) -> None:
    """Serve it on 127.0.0.1 until told to stop.

    Raises:
        NotFound: there are no studies in that home.
    """
    home = home.absolute()
    if not (home / FILE).exists():
        raise NotFound(f"there are no studies in {home}; run one first, or name their folder with --home")
    Console(stderr=True).print(f"the dashboard is at http://127.0.0.1:{port}/dashboard", highlight=False)
    app = make_local_dashboard(mirror_url(sqlite_url(home / FILE), home))
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning")
