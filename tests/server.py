"""What the tests' servers have in common: a free port, a folder, a start that is awaited, an end that is certain."""

import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Self

HOST = "127.0.0.1"
KEEPER = Path(__file__).with_name("keeper.py")
PORTS = range(20_000, 32_000)  # below what systems give to outgoing connections, so a stopped server's port stays free
START_SECONDS, END_SECONDS, LOOK_SECONDS = 60.0, 30.0, 0.02
ATTEMPTS = 5


def free_port() -> int:
    """A port of this machine that nobody listens on now."""
    for port in random.SystemRandom().sample(PORTS, 100):
        with socket.socket() as probe, suppress(OSError):
            probe.bind((HOST, port))
            return port
    raise AssertionError("no port is free")


def is_open(port: int) -> bool:
    """Whether somebody listens on that port of this machine."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((HOST, port)) == 0


def wait_until(true: Callable[[], bool], what: str, seconds: float = START_SECONDS) -> None:
    """Look again and again until it is true.

    Raises:
        AssertionError: it was not so in time.
    """
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            raise AssertionError(f"after {seconds:.0f} s still not: {what}")
        time.sleep(LOOK_SECONDS)


def unprivileged() -> str:
    """The user that servers run as which refuse root; empty when these tests are not root's."""
    if os.geteuid() != 0:
        return ""
    names = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in ("postgres", "nobody") if name in names)


def new_folder(user: str) -> Path:
    """A temporary folder of that user's, in a place that the user may enter."""
    if not user:
        return Path(tempfile.mkdtemp(prefix="mergesearch-"))
    places = [Path(place).resolve() for place in (tempfile.gettempdir(), "/tmp", "/var/tmp")]
    open_to_all = (p for p in places if all(folder.stat().st_mode & 0o001 for folder in (p, *p.parents)))
    folder = tempfile.mkdtemp(prefix="mergesearch-", dir=next(open_to_all))
    shutil.chown(folder, user, pwd.getpwnam(user).pw_gid)
    return Path(folder)


class Server(ABC):
    """A server in a folder of its own. It keeps its port when it is stopped and started again."""

    owner_died: signal.Signals  # what ends all of the server at once when the tests are killed

    def __init__(self, user: str = "") -> None:
        self.port = 0
        self.pid = 0
        self.user = user
        self.folder = new_folder(user)
        self._keeper: subprocess.Popen[bytes] | None = None

    @property
    @abstractmethod
    def url(self) -> str:
        """Where clients find it."""

    @abstractmethod
    def _command(self) -> list[str]: ...

    @abstractmethod
    def _answers(self) -> bool:
        """Whether this very server, not somebody else's on the same port, takes commands."""

    def start(self) -> None:
        """Start it and wait until it answers.

        Raises:
            AssertionError: it does not; with its log.
        """
        if self._keeper is not None:
            assert self._ended(), "it runs already"
            self._forget()
        settled = self.port
        for _ in range(ATTEMPTS):
            self.port = settled or free_port()
            self._spawn()
            wait_until(lambda: self._ended() or self._answers(), f"the server on port {self.port} answers")
            if not self._ended():
                return
            self._forget()  # most likely somebody else took the port meanwhile
        raise AssertionError(f"{self._command()} does not start:\n{(self.folder / 'log').read_text()[-2000:]}")

    def kill(self) -> None:
        """SIGKILL it, and wait until all of its processes are gone."""
        self._end(signal.SIGKILL)

    def close(self) -> None:
        """End it and remove its folder."""
        if self._keeper is not None:
            self._end(self.owner_died)
        shutil.rmtree(self.folder)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _spawn(self) -> None:
        program = [sys.executable, "-I", "-S", str(KEEPER), str(self.folder), str(int(self.owner_died)), self.user]
        with open(self.folder / "log", "ab") as log:
            self._keeper = subprocess.Popen(
                [*program, *self._command()],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_", "LANG"))},
                start_new_session=True,
                bufsize=0,
            )
        assert self._keeper.stdout is not None
        self.pid = int(self._keeper.stdout.readline() or 0)

    def _ended(self) -> bool:
        return self._keeper is None or self._keeper.poll() is not None

    def _end(self, number: signal.Signals) -> None:
        assert self._keeper is not None and self._keeper.stdin is not None, "it does not run"
        with suppress(BrokenPipeError):  # it ended by itself
            self._keeper.stdin.write(bytes([number, signal.SIGCONT]))  # a test may have sent SIGSTOP
        self._keeper.wait(END_SECONDS)
        self._forget()

    def _forget(self) -> None:
        assert self._keeper is not None
        for stream in (self._keeper.stdin, self._keeper.stdout):
            assert stream is not None
            stream.close()
        self._keeper, self.pid = None, 0
