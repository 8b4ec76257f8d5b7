"""What the trials of a study cost in search documents, counted as they come and go."""

from collections import Counter
from collections.abc import Mapping, Sequence

from db.records import DocumentSet, Trial


class Ledger:
    """The documents of one study's trials.

    A recipe that several trials try is scored once and counts once; a trial that gave no score costs nothing. What is
    taken over from other studies counts as if it were scored, so that a budget means the same in every home.

    Args:
        sets: the search documents of each task that trials are judged by.
    """

    def __init__(self, sets: Mapping[str, DocumentSet]) -> None:
        rungs = max((len(found.sizes) for found in sets.values()), default=1)
        self._costs = tuple(_documents(sets, rung) for rung in range(rungs))
        self._at: dict[int, tuple[int, int]] = {}  # evaluation and documents, by trial
        self._users: Counter[int] = Counter()  # trials, by evaluation
        self.documents = 0

    def cost(self, rung: int) -> int:
        """The documents of a trial that has come to that rung."""
        return self._costs[min(rung, len(self._costs) - 1)]

    @property
    def whole(self) -> int:
        """The documents of a trial that is scored in full."""
        return self._costs[-1]

    def note(self, trial: Trial) -> None:
        """Take note of a trial as it is now: added, promoted, told or rescored."""
        earlier = self._at.pop(trial.number, None)
        if earlier is not None:
            evaluation, documents = earlier
            self._users[evaluation] -= 1
            self.documents -= documents if not self._users[evaluation] else 0
        if trial.evaluation_id is None or trial.state not in ("open", "complete", "pruned"):
            return
        self._at[trial.number] = trial.evaluation_id, self.cost(trial.rung)
        self.documents += self.cost(trial.rung) if not self._users[trial.evaluation_id] else 0
        self._users[trial.evaluation_id] += 1


def ledger_of(sets: Mapping[str, DocumentSet], trials: Sequence[Trial]) -> Ledger:
    """The ledger of trials as they are in the database."""
    ledger = Ledger(sets)
    for trial in trials:
        ledger.note(trial)
    return ledger


def _documents(sets: Mapping[str, DocumentSet], rung: int) -> int:
    return sum(found.sizes[min(rung, len(found.sizes) - 1)] for found in sets.values())
