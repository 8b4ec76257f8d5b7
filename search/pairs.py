"""A recipe of compressed experts, and the same with the experts as they are: what compression costs."""

from collections.abc import Iterator, Sequence

from db.records import Study, Trial
from db.store import Store
from search.ranked import ranked
from search.twins import is_lossy, searched, twins


def best_compressed(store: Store, study: Study, trials: Sequence[Trial]) -> Iterator[Trial]:
    """A complete trial for each recipe of compressed experts, best first; none where they lost nothing."""
    if not is_lossy(study):
        return
    seen: set[int] = set()
    for trial in ranked(store, study, searched(trials)):
        assert trial.evaluation_id is not None, "a complete trial was evaluated"
        if trial.evaluation_id in seen:
            continue
        seen.add(trial.evaluation_id)
        if store.evaluations.recipe(trial.evaluation_id).compress is not None:
            yield trial


def pairs(store: Store, study: Study, trials: Sequence[Trial], winner: Trial) -> list[tuple[Trial, Trial]]:
    """The trials that can show what compression costs, with it and without: of the winner's recipe first, then of the
    best.
    """
    there = {number: twin for number, twin in twins(trials).items() if twin.value is not None}
    if not there:
        return []
    found = [(t, there[t.number]) for t in ranked(store, study, searched(trials)) if t.number in there]
    return sorted(found, key=lambda pair: winner not in pair)
