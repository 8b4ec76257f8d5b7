"""Several workers of one machine, one a device, each in a process of its own that is started again when it dies."""

import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess, parent_process

from merging.errors import MergesearchError
from workers.devices import count_gpus
from workers.host import cores
from workers.service import run_worker
from workers.settings import WorkerServiceSettings

SOUND_SECONDS = 60.0  # a worker that lasted this long is started again at once
MOST_PAUSE_SECONDS = 30.0
_log = logging.getLogger(__name__)


def default_devices() -> tuple[str, ...]:
    """Every GPU, or the CPU where there is none."""
    return tuple(f"cuda:{i}" for i in range(count_gpus())) or ("cpu",)


def run_workers(settings: WorkerServiceSettings, devices: Sequence[str] = ()) -> int:
    """Run a worker on each device until asked to leave by SIGTERM or SIGINT.

    Args:
        settings: of all of them; the device is replaced.
        devices: none: every GPU, or the CPU where there is none. One may be named several times.

    Returns:
        The exit code.

    Raises:
        InvalidInput, SchemaBehind: as `run_worker`, if there is one worker.
    """
    if settings.rehearsal is not None and not devices:
        devices = ("cpu",)
    devices = tuple(devices) or default_devices()
    threads = settings.threads or max(1, cores() // len(devices))
    each = [replace(settings, device=device, threads=threads) for device in devices]
    return run_worker(each[0]) if len(each) == 1 else _Supervisor(each).run()


@dataclass
class _Seat:
    """One device, and the process that works on it now."""

    settings: WorkerServiceSettings
    process: BaseProcess | None = None
    began: float = 0.0
    pause: float = 0.0
    start_at: float = 0.0


class _Supervisor:
    def __init__(self, settings: Sequence[WorkerServiceSettings]) -> None:
        self._seats = [_Seat(each) for each in settings]
        self._leaving = False
        self._read, self._write = os.pipe()  # wakes the loop from the signal handler

    def run(self) -> int:
        """Start, watch and start again; when asked to leave, ask the workers to, and wait for them."""
        if (set_up := self._seats[0].settings.set_up_logs) is not None:
            set_up()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._asked_to_leave)
        while not self._leaving or any(seat.process for seat in self._seats):
            now = time.monotonic()
            for seat in self._seats:
                if seat.process is None and not self._leaving and seat.start_at <= now:
                    self._start(seat)
            self._wait(now)
        return 0

    def _start(self, seat: _Seat) -> None:
        context = multiprocessing.get_context("spawn")
        process = context.Process(target=_worker_process, args=(seat.settings,), name=f"worker {seat.settings.device}")
        process.start()
        seat.process, seat.began = process, time.monotonic()
        if self._leaving:  # the signal came while it was being made
            process.terminate()

    def _wait(self, now: float) -> None:
        """Until a worker ended, one is to be started, or a signal came."""
        running = {seat.process.sentinel: seat for seat in self._seats if seat.process is not None}
        due = [seat.start_at - now for seat in self._seats if seat.process is None and not self._leaving]
        for happened in wait([*running, self._read], max(min(due), 0.0) if due else None):
            if happened == self._read:
                os.read(self._read, 64)
            elif isinstance(happened, int):
                self._bury(running[happened])

    def _bury(self, seat: _Seat) -> None:
        assert seat.process is not None
        seat.process.join()
        code, lasted = seat.process.exitcode, time.monotonic() - seat.began
        seat.process = None
        if self._leaving:
            return
        seat.pause = 0.0 if lasted > SOUND_SECONDS else min(max(1.0, 2 * seat.pause), MOST_PAUSE_SECONDS)
        seat.start_at = time.monotonic() + seat.pause
        _log.error(
            "the worker on %s ended with %s after %.0f s; it is started again in %.0f s",
            *(seat.settings.device, code, lasted, seat.pause),
            extra={"action": "worker.ended"},
        )

    def _asked_to_leave(self, *_: object) -> None:
        self._leaving = True
        for seat in self._seats:
            if seat.process is not None:
                seat.process.terminate()  # which bears that it has just ended
        os.write(self._write, b"x")


def _worker_process(settings: WorkerServiceSettings) -> None:
    os.setsid()  # a terminal's Ctrl-C reaches the supervisor alone: asked twice, a worker would hand back at once
    threading.Thread(target=_leave_with_parent, name="orphan", daemon=True).start()
    try:
        code = run_worker(settings)
    except MergesearchError as error:
        _log.error("%s", error, extra={"action": "worker.refused"})
        code = 1
    raise SystemExit(code)


def _leave_with_parent() -> None:
    """A worker that nobody watches finishes what it does, and leaves."""
    parent = parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)
