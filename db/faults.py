"""Points at which a process can be made to die, or to freeze, to see that nothing is lost when one does.

`MERGESEARCH_FAULT=controller.added:3` kills the process with SIGKILL the third time it passes that point;
`controller.added:3:stop` freezes it there with SIGSTOP. Several are separated by commas. Nothing happens where the
variable is not set.
"""

import os
import signal
from collections import Counter

VARIABLE = "MERGESEARCH_FAULT"
_passed: Counter[str] = Counter()


def fault_point(name: str) -> None:
    """Die or freeze here, if this process was told to."""
    asked = os.environ.get(VARIABLE)
    if not asked:
        return
    _passed[name] += 1
    now, faults = f"{name}:{_passed[name]}", asked.split(",")
    if now in faults:
        os.kill(os.getpid(), signal.SIGKILL)
    if f"{now}:stop" in faults:
        os.kill(os.getpid(), signal.SIGSTOP)
