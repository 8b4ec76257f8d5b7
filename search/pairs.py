"""A recipe of compressed experts, and the same with the experts as they are: what compression costs."""

from collections.abc import Iterator, Sequence

from db.records import Study, Trial
from db.store import Store
from search.ranked import ranked
from search.twins import searched, twins


def best_compressed(store: Store, study: Study, trials: Sequence[Trial]) -> Iterator[Trial]:
    """The complete trials whose experts were compressed, best first; none where the study compresses nothing."""
    if "compressed" not in study.setup:
        return
    for trial in ranked(store, study, searched(trials)):
        if trial.evaluation_id is not None and store.evaluations.recipe(trial.evaluation_id).compress is not None:
            yield trial


def pair_of(store: Store, study: Study, trials: Sequence[Trial], winner: Trial) -> tuple[Trial, ...]:
    """The trials that show what compression costs: with it, then without; none if there is no such pair.

    Of the winner's recipe, and where that is a baseline of the best recipe that has both.
    """
    there = {number: twin for number, twin in twins(trials).items() if twin.value is not None}
    own = [t for t in trials if t.number in there and winner.number in (t.number, there[t.number].number)]
    found = own or [t for t in best_compressed(store, study, trials) if t.number in there][:1]
    return (found[0], there[found[0].number]) if found else ()
