"""Decides when one study's search is over: by its limits, or because there is too little left to gain.

What it decides by are rows, so a controller that starts again decides alike; only the minutes go by a clock.
"""

import math
from collections.abc import Sequence

from db.records import Study, Trial
from evaluation.result import TaskScore
from search.judge import violation
from search.luck import room_above
from search.standings import Standings
from search.starts.start import Start, is_baseline
from search.stopping.clock import SearchClock
from search.stopping.ended import EXHAUSTED, Ended
from search.stopping.gain import Attempt, surely_gains_less
from search.stopping.ledger import Ledger
from search.stopping.limits import Limits, Spent
from search.stopping.noise import Noise
from search.strategies.contract import Exhausted, Wait
from search.study import StudySpec


class Ending:
    """The end of one search.

    Args:
        starts: what it begins with; the baselines among them are tried whatever the budget says, for without them
            there is nothing to compare with.
        clock: of the study.
    """

    def __init__(
        self, spec: StudySpec, study: Study, starts: Sequence[Start], standings: Standings, clock: SearchClock
    ) -> None:
        self._standings, self._clock, self._stop = standings, clock, spec.stop
        self._margin, self._seed = spec.search.margin, spec.search.seed
        self._room_of: int | None = None  # the best trial that was seen to leave something above it
        self._starts, self._needed = len(starts), necessary(starts)
        self._ledger = Ledger(standings.sets)
        self._limits = Limits(spec.search, self._ledger.whole)
        self._noise = Noise(spec.search.seed, standings.scores)
        self._before = None if study.ended is None else Ended.model_validate(study.ended)
        self._told: list[tuple[float | None, float, float]] = []  # value, share of the documents, best after it
        self._best, self._start = -math.inf, -math.inf
        self._exhausted: Ended | None = None

    def exhaust(self, last: Wait | Exhausted) -> None:
        """Take note that the strategy proposes nothing, and nothing is open that could change that."""
        said = last.why if isinstance(last, Exhausted) else ""
        self._exhausted = EXHAUSTED.model_copy(update={"why": f"{EXHAUSTED.why}: {said}"}) if said else EXHAUSTED

    def note(self, trial: Trial) -> None:
        """Take note of a trial as it is now: added, promoted or told."""
        self._ledger.note(trial)

    def learn(self, trial: Trial) -> None:
        """Take note of a trial that was told; in the order in which they were."""
        value = trial.value if trial.estimate is None else trial.estimate  # also where it was scored in full since
        lawful = value is not None and not violation(trial)
        if lawful and trial.estimate is None and self._standings.counts(trial):
            self._best = max(self._best, value or 0.0)
        if trial.number < self._starts:
            self._start = self._best
            return
        share = 1.0 if trial.estimate is None else self._share(trial)
        self._told.append((value if lawful and share else None, share, self._best))

    def reached(self, asked: int) -> Ended | None:
        """Why nothing more should be tried; None: something should.

        Args:
            asked: how many trials the search has asked for.
        """
        if self._before is not None:
            return self._before
        spent = self._spent(asked)
        limit = self._limits.reached(spent)
        if limit is not None and (limit.reason == "trials" or asked >= self._needed):
            return limit
        if self._exhausted is not None:
            return self._exhausted
        return self._too_little(spent) if asked >= self._starts else None

    def share(self, asked: int) -> float:
        """How much of the nearest limit is used up, at most 1."""
        return min(1.0, self._limits.share(self._spent(asked)))

    def allows(self, trial: Trial, rung: int, asked: int) -> bool:
        """Whether the budget lets an open trial go on to that rung."""
        more = self._ledger.cost(rung) - self._ledger.cost(trial.rung)
        return self._limits.allows(self._spent(asked), more)

    def _spent(self, asked: int) -> Spent:
        return Spent(asked, self._ledger.documents, self._clock.seconds)

    def _share(self, trial: Trial) -> float:
        """The share of the search documents on which a stopped trial was estimated; 0: by a proxy alone."""
        return trial.steps[-1].documents / self._ledger.whole if trial.steps else 0.0

    def _too_little(self, spent: Spent) -> Ended | None:
        """The end, if the trials left are expected to gain less than what the study says is worth it."""
        left = self._limits.left(spent)
        if self._stop is False or left < 1:
            return None
        if (perfect := self._nothing_above(left)) is not None:
            return perfect
        if not self._told:
            return None
        noise = self._noise.between(self._standings.best, self._standings.measure)
        if noise is None:
            return None
        least = noise if self._stop is True else self._stop
        attempts = [
            Attempt(value, noise * math.sqrt(1.0 / share - 1.0) if share else 0.0, best)
            for value, share, best in self._told
        ]
        gain = surely_gains_less(attempts, self._start, left, least)
        if gain is None:
            return None
        what = "the noise between two good candidates" if self._stop is True else "what `search.stop` asks for"
        why = f"another {left} trials were expected to gain {gain:.2g}, less than {what} ({least:.2g})"
        return Ended(reason="gain", why=why, left=left, expected=gain, least=least)

    def _nothing_above(self, left: int) -> Ended | None:
        """The end, if a recipe that had every document right would not surely be better than the best one."""
        best = self._standings.best[:1]
        if not best or self._room_of == best[0].number:
            return None
        measure, scores = self._standings.measure, self._standings.scores(best[0])
        room = room_above(measure, scores, self._seed)
        if room is None or (room.difference > 0 and not room.is_luck(self._margin)):
            self._room_of = best[0].number
            return None
        wrong, documents = _wrong(measure.counting(scores))
        why = (
            f"trial {best[0].number} has {documents - wrong} of {documents} documents right: none can be better by "
            "more than luck"
        )
        return Ended(reason="gain", why=why, left=left, expected=room.difference, least=self._margin * room.stderr)


def _wrong(scores: Sequence[TaskScore]) -> tuple[int, int]:
    """How many documents are wrong, of how many."""
    items = [(item, score.higher_is_better) for score in scores for item in score.items]
    return sum(bool(item) != higher for item, higher in items), len(items)


def necessary(starts: Sequence[Start]) -> int:
    """How many of the starts, all baselines and the first of them, are tried whatever the budget says."""
    return next((i for i, start in enumerate(starts) if not is_baseline(start.origin)), len(starts))
