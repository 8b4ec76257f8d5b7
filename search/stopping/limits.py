"""The limits of a search that its study file names: trials, documents, minutes. It ends with the first one reached."""

from collections.abc import Iterator
from dataclasses import dataclass

from search.searchspec import UNLIMITED, SearchSpec
from search.stopping.ended import Ended, Reason


@dataclass(frozen=True)
class Spent:
    """What a search has taken so far.

    Attributes:
        trials: how many it asked for.
        documents: search documents scored for its trials, and those that its open trials are about to need.
        seconds: for how long it was searched.
    """

    trials: int
    documents: int
    seconds: float


class Limits:
    """The limits of one search.

    Args:
        whole: how many search documents there are: the most that one trial costs.
    """

    def __init__(self, search: SearchSpec, whole: int) -> None:
        self._search, self._whole = search, whole

    def reached(self, spent: Spent) -> Ended | None:
        """The end, if a limit leaves no room for another trial."""
        full = next((reason for reason, share in self._shares(spent) if share >= 1.0), None)
        return None if full is None else Ended(reason=full, why=self._why(full))

    def share(self, spent: Spent) -> float:
        """How much of the limit that is nearest is used up; more than 1 where the last trial went beyond it."""
        return max(share for _, share in self._shares(spent))

    def left(self, spent: Spent) -> int:
        """About how many trials there are to come, at what the trials so far have cost."""
        share = self.share(spent)
        if share <= 0.0:
            return self._search.trials
        return min(self._search.trials - spent.trials, round(spent.trials * (1.0 - share) / share))

    def allows(self, spent: Spent, more: int) -> bool:
        """Whether an open trial may be scored on so many more documents.

        What is begun is finished, as long as the search ends within one trial's cost of its budget. Without that, each
        of many open trials could go beyond it.
        """
        limit = self._search.budget.documents
        return limit is None or spent.documents + more <= limit + self._whole

    def _shares(self, spent: Spent) -> Iterator[tuple[Reason, float]]:
        budget = self._search.budget
        yield "trials", spent.trials / self._search.trials
        if budget.documents is not None:
            yield "documents", spent.documents / budget.documents
        if budget.minutes is not None:
            yield "minutes", spent.seconds / (60.0 * budget.minutes)

    def _why(self, reason: Reason) -> str:
        budget = self._search.budget
        if reason == "documents":
            return f"the budget of {budget.documents:,} documents was used up"
        if reason == "minutes":
            return f"the budget of {budget.minutes:g} minutes was used up"
        return f"all {self._search.trials} trials that were asked for were run"


def most_trials(search: SearchSpec) -> int | None:
    """How many trials the study asks for; None: as many as its budget allows."""
    return None if search.trials >= UNLIMITED else search.trials
