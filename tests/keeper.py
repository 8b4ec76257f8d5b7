"""A script that runs one server for as long as the process that asked for it lives, however that one ends.

    python keeper.py FOLDER LAST_SIGNAL USER COMMAND...

It prints the server's pid, and hands each byte it reads on to the server, as a signal of that number. When its
input ends, or its parent is gone, it sends LAST_SIGNAL and removes FOLDER. It ends when the server's whole family
has ended: each of them holds one end of a pipe.

Linux's own "kill me with my parent" would act when the *thread* that started the server ends, which is too early.
"""

import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from select import select

MOST_SECONDS = 10.0


def start(folder: Path, user: str, command: list[str], family: int) -> subprocess.Popen[bytes]:
    """The server as that user (as oneself if empty), its output in the folder's log."""
    with open(folder / "log", "ab") as log:
        return subprocess.Popen(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=[family],
            start_new_session=True,
            user=user or None,
            group=_group(user),
            extra_groups=[] if user else None,
        )


def _group(user: str) -> int | None:
    import pwd

    return pwd.getpwnam(user).pw_gid if user else None


def keep(folder: Path, last_signal: int, user: str, command: list[str]) -> None:
    """Run the server until all of it has ended, or nobody wants it any more."""
    owner = os.getppid()
    family, inherited = os.pipe()
    server = start(folder, user, command, inherited)
    os.close(inherited)
    with suppress(BrokenPipeError):  # an owner that is gone already is noticed below
        os.write(1, b"%d\n" % server.pid)
    while family not in (ready := select([family, 0], [], [], 1.0)[0]):
        if 0 in ready and (byte := os.read(0, 1)):
            server.send_signal(byte[0])
        elif 0 in ready or os.getppid() != owner:
            server.send_signal(last_signal)
            server.send_signal(signal.SIGCONT)
            if not select([family], [], [], MOST_SECONDS)[0]:
                server.kill()
            shutil.rmtree(folder, ignore_errors=True)
            break
    server.wait()


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    keep(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4:])
