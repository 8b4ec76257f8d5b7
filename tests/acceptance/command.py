"""Runs the real command line in processes of its own."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

SCRIPT = Path(sys.executable).parent / "mergesearch"
LIMIT_SECONDS = 540


def mergesearch(*arguments: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run one command to its end."""
    done = subprocess.run(
        [SCRIPT, *map(str, arguments)], capture_output=True, text=True, timeout=LIMIT_SECONDS, check=False
    )
    if check and done.returncode != 0:
        raise AssertionError(f"exit {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done


def output(*arguments: str | Path) -> Any:
    """What a command prints with `--json`."""
    return json.loads(mergesearch(*arguments, "--json").stdout)


@contextmanager
def started(*arguments: str | Path) -> Iterator["subprocess.Popen[str]"]:
    """A command under way, its log readable line by line; whatever is left of its process group is killed after."""
    process = subprocess.Popen(
        [SCRIPT, *map(str, arguments)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
        # tests started in the background of a shell inherit an ignored Ctrl-C, which a person's shell never hands on
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert process.stderr is not None
        process.stderr.close()


def read_until(process: "subprocess.Popen[str]", words: str) -> str:
    """Read the log until a line holds `words`; that line.

    Raises:
        AssertionError: the log ended first.
    """
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if words in line:
            return line
    raise AssertionError(f"the log ended without {words!r}:\n{''.join(lines)}")
