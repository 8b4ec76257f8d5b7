"""What a worker knows of the machine it runs on."""

import os
import resource
import socket
import threading
import uuid
from multiprocessing import parent_process
from multiprocessing.connection import wait
from pathlib import Path


def owner_name() -> str:
    """A name that no other process has."""
    return f"{socket.gethostname()}:{uuid.uuid4().hex[:12]}"


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory() -> tuple[int, int]:
    """Bytes of memory that this process takes, and that the machine has."""
    page = os.sysconf("SC_PAGE_SIZE")
    try:
        used = int(Path("/proc/self/statm").read_text().split()[1]) * page
    except OSError:  # not Linux: the most it ever took, which macOS counts in bytes
        used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used, os.sysconf("SC_PHYS_PAGES") * page


def die_with_parent() -> None:
    """End this process when its parent has: it would only hold memory and finish what nobody waits for."""
    threading.Thread(target=_await_the_end, name="orphan", daemon=True).start()


def _await_the_end() -> None:
    parent = parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
