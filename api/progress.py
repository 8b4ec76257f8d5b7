"""What a person sees of a run while it goes on: a live line on a terminal, a plain log elsewhere. On stderr."""

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager

from rich.console import Console

from api.describe import counted, describe, duration
from api.embedded import Watcher
from api.liveline import PHASES, LiveLine
from db.records import Trial
from db.store import Store
from search.controller import Told
from search.judge import violation
from search.stopping.ended import Ended


class RunProgress:
    """Counts what happens in one run and shows it.

    Attributes:
        watcher: to be given to `run_study`.
    """

    def __init__(self, store: Store, console: Console) -> None:
        self._store = store
        self._line = LiveLine(console, self._parts)
        self._phase = ""
        self._began = time.monotonic()
        self._first: tuple[float, float] | None = None  # when the first trial of this run ended, and the share used up
        self._far, self._share = "", 0.0
        self._best: Trial | None = None
        self._best_recipe = ""
        self._documents: dict[int, int] = {}  # documents done, by evaluation
        say = self._line.say
        self.watcher = Watcher(self._on_phase, self._on_resumed, self._on_told, self._on_documents, say, self._on_ended)

    def shown(self) -> AbstractContextManager[None]:
        """Show the live line until the block ends; without a terminal nothing is drawn, lines are printed."""
        return self._line.shown()

    def _on_phase(self, phase: str) -> None:
        self._phase = PHASES.get(phase, phase)
        if not self._line.drawn:
            self._line.say(self._phase)
        self._line.refresh()

    def _on_resumed(self, trials: Sequence[Trial]) -> None:
        for trial in trials:
            self._is_better(trial)
        ended = sum(trial.state != "open" for trial in trials)
        best = f", best so far {self._best.value:.4f}: {self._best_recipe}" if self._best else ""
        self._line.say(f"going on after {ended} trials{best}")

    def _on_told(self, event: Told) -> None:
        self._far, self._share = counted(event.ended, event.total, event.share), event.share
        self._first = self._first or (time.monotonic(), self._share)
        trial = event.trial
        better = self._is_better(trial)
        if not self._line.drawn or better:
            self._line.say(self._told_line(trial, better))
        self._line.refresh()

    def _on_ended(self, ended: Ended) -> None:
        self._line.say(f"the search ended: {ended.why}")

    def _is_better(self, trial: Trial) -> bool:
        """Whether the trial is the best so far; if so it is remembered."""
        if trial.value is None or trial.evaluation_id is None:
            return False
        if self._best is not None and _rank(trial) <= _rank(self._best):
            return False
        self._best = trial
        self._best_recipe = describe(self._store.evaluations.recipe(trial.evaluation_id))
        return True

    def _on_documents(self, evaluation_id: int, done: int, total: int) -> None:
        self._documents[evaluation_id] = done
        self._line.refresh()

    def _told_line(self, trial: Trial, better: bool) -> str:
        value = f"{trial.value:.4f}" if trial.value is not None else f"{trial.state}: {trial.why}"
        if trial.state == "pruned" and trial.steps and trial.estimate is not None:
            after = f"after {n} documents" if (n := trial.steps[-1].documents) else "by the proxy"
            value = f"about {trial.estimate:.4f}, stopped {after}"
        elif violation(trial):
            value = f"{value}, beyond the constraints"
        tail = f"  best so far: {self._best_recipe}" if better else ""
        return f"{self._far}  trial {trial.number}  {trial.origin}  {value}{tail}"

    def _parts(self) -> list[str]:
        elapsed = time.monotonic() - self._began
        parts = [self._phase]
        if self._far:
            parts.append(f"trial {self._far}")
        if self._best is not None:
            parts.append(f"best {self._best.value:.4f} (trial {self._best.number}: {self._best_recipe})")
        if documents := sum(self._documents.values()):
            parts.append(f"{documents:,} documents scored")
        left = self._seconds_left()
        parts.append(f"{duration(elapsed)} gone" + (f", about {duration(left)} left" if left is not None else ""))
        return parts

    def _seconds_left(self) -> float | None:
        if self._first is None or self._share <= self._first[1]:
            return None
        whole = (time.monotonic() - self._first[0]) / (self._share - self._first[1])
        return whole * (1.0 - self._share)


def _rank(trial: Trial) -> tuple[float, float]:
    """Larger is better: one that meets the constraints before any that does not."""
    return -violation(trial), trial.value or 0.0
