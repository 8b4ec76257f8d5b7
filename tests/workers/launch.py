"""Starts what `mergesearch worker` starts, for tests: `python -m tests.workers.launch SETTINGS DEVICES`, both JSON."""

import json
import sys
from functools import partial

from api.service.logs import set_up_logs
from workers.rehearsal import Rehearsal
from workers.settings import WorkerServiceSettings
from workers.supervisor import run_workers


def main() -> None:
    """Run until asked to leave."""
    content, devices = json.loads(sys.argv[1]), json.loads(sys.argv[2])
    rehearsal = content.pop("rehearsal")
    settings = WorkerServiceSettings(
        **{**content, "pools": tuple(content["pools"])},
        rehearsal=None if rehearsal is None else Rehearsal(**rehearsal),
        set_up_logs=partial(set_up_logs, "text"),
    )
    raise SystemExit(run_workers(settings, devices))


if __name__ == "__main__":
    main()
