"""A process told to die at a point does so at that pass of it, and no other does."""

import os
import signal
import subprocess
import sys

import pytest

from db.faults import VARIABLE, fault_point

WALK = """
from db.faults import fault_point
for turn in range(1, 5):
    for name in ("a", "b"):
        fault_point(name)
        print(name, turn, sep="", end=" ", flush=True)
"""
ALL = ["a1", "b1", "a2", "b2", "a3", "b3", "a4", "b4"]


@pytest.mark.parametrize(
    ("asked", "passed"),
    [("a:1", 0), ("a:3", 4), ("b:2", 3), ("c:1,b:4", 7), ("a:5", 8), ("", 8), (None, 8), ("a", 8), ("a:3,b:1", 1)],
)
def test_a_process_dies_where_it_was_told_to(asked: str | None, passed: int) -> None:
    environment = {key: value for key, value in os.environ.items() if key != VARIABLE}
    if asked is not None:
        environment[VARIABLE] = asked
    done = subprocess.run([sys.executable, "-c", WALK], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ALL[:passed]
    assert done.returncode == (0 if passed == len(ALL) else -signal.SIGKILL), done.stderr


def test_nothing_happens_where_nothing_was_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    for _ in range(10):
        fault_point("here")
