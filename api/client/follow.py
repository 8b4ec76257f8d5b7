"""What a person sees of a study that a service runs: a live line on a terminal, a plain log elsewhere. On stderr."""

import time
from collections.abc import Iterable
from typing import Any

from rich.console import Console

from api.client.events import OVER, StudyEvent
from api.client.remote import Remote
from api.describe import counted, describe, duration
from api.liveline import PHASES, LiveLine
from merging.errors import MergesearchError
from merging.recipe import parse_recipe


class FollowProgress:
    """Takes a study's events and shows what they say.

    Args:
        total: how many trials the study will have; None: as many as its budget allows.

    Attributes:
        state: the study's, as the events tell it.
    """

    def __init__(self, remote: Remote, name: str, total: int | None, console: Console) -> None:
        self._remote, self._name, self._total = remote, name, total
        self._line = LiveLine(console, self._parts)
        self._began = time.monotonic()
        self._phase, self._done = "", 0
        self._best: tuple[int, float, str] | None = None  # trial, value, recipe in words
        self._running: list[dict[str, Any]] = []
        self.state = "running"

    def show(self, events: Iterable[StudyEvent]) -> None:
        """Show the events until there are no more."""
        with self._line.shown():
            for event in events:
                self._take(event)
                self._line.refresh()

    def _take(self, event: StudyEvent) -> None:
        data = event.data
        if event.kind == "trial.told":
            self._told(data)
        elif event.kind == "progress":
            self._running = data.get("running") or []
        elif event.kind == "study.phase":
            self._phase = PHASES.get(data["phase"], str(data["phase"]))
            if not self._line.drawn:
                self._line.say(self._phase)
        elif event.kind == "search.ended":
            self._line.say(f"the search ended: {data.get('why')}")
        elif event.kind == "trial.retried":
            self._line.say(f"evaluation {data.get('evaluation')} is begun again: {data.get('why')}")
        elif event.kind == "study.state":
            self.state = data["state"]
            if self.state not in OVER:
                self._line.say(f"the study is {self.state}")

    def _told(self, data: dict[str, Any]) -> None:
        self._done += 1
        number, value = int(data["number"]), data.get("value")
        said, tail = f"{data['state']}: {data.get('why')}", ""
        if value is not None:
            said = f"{value:.4f}"
            if self._best is None or value > self._best[1]:
                self._best = (number, float(value), self._recipe(number))
                tail = f"  best so far: {self._best[2]}"
        if not self._line.drawn or tail:
            self._line.say(f"{counted(self._done, self._total, None)}  trial {number}  {data['origin']}  {said}{tail}")

    def _recipe(self, number: int) -> str:
        try:
            return describe(parse_recipe(self._remote.trial(self._name, number)["recipe"]))
        except MergesearchError:  # words about it are not worth the end of the show
            return f"trial {number}"

    def _parts(self) -> list[str]:
        parts = [self._phase or "waiting for a controller" if self.state == "running" else self.state]
        parts.append(f"trial {counted(self._done, self._total, None)}")
        if self._best is not None:
            number, value, recipe = self._best
            parts.append(f"best {value:.4f} (trial {number}: {recipe})")
        known = [one["progress"] for one in self._running if one.get("progress")]
        measuring = [one for one in known if one.get("artefacts_total")]
        if measuring:
            done, total = (sum(p[key] for p in measuring) for key in ("artefacts_done", "artefacts_total"))
            parts.append(f"{len(measuring)} measuring: {done} of {total} artefacts")
        scoring = [one for one in known if not one.get("artefacts_total")]
        if scoring:
            done, total = (sum(p[key] for p in scoring) for key in ("documents_done", "documents_total"))
            parts.append(f"{len(self._running) - len(measuring)} being scored: {done:,} of {total:,} documents")
        parts.append(f"{duration(time.monotonic() - self._began)} gone")
        return parts
