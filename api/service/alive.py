"""`python -m api.service.alive ROLE`: whether a process of this machine was heard of lately, as a container's health
check. It ends with 0 if so, else with 1 and a word on stderr. Loads neither torch nor the service.
"""

import os
import socket
import sys

from api.service.settings import PREFIX
from db.processes import Processes
from db.session import is_away, make_engine
from merging.errors import MergesearchError

SECONDS = 60.0  # a worker says so every 10 s


def is_alive(database_url: str, role: str, host: str) -> bool:
    """Whether a process of that role on that host was heard of in the last minute."""
    engine = make_engine(database_url)
    try:
        return any(process.host == host for process in Processes(engine).alive(role, SECONDS))
    finally:
        engine.dispose()


def main(role: str) -> str | None:
    """What is wrong with this machine's processes of that role; None: nothing."""
    host = socket.gethostname()
    try:
        if is_alive(os.environ.get(f"{PREFIX}DATABASE_URL", ""), role, host):
            return None
    except MergesearchError as error:
        return str(error)
    except Exception as error:
        if not is_away(error):
            raise
        return "the database does not answer"
    return f"no {role} of {host} was heard of in the last {SECONDS:.0f} s"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
