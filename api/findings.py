"""What `mergesearch doctor` says about one thing it looked at."""

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "warning", "bad"]


@dataclass(frozen=True)
class Finding:
    """One thing looked at: `ok`, `warning` or `bad`."""

    what: str
    state: State
    found: str
