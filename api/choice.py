"""Which trial of a study an export writes. No torch here: the service refuses before it queues anything."""

from db.records import Study, Trial
from db.store import Store
from merging.errors import Conflict, NotFound


def chosen_trial(store: Store, study: Study, number: int | None) -> Trial:
    """The trial to export: the one with that number, or the winner; before there is a verdict, the best so far.

    Raises:
        NotFound: there is no such trial, or none is complete yet.
        Conflict: the trial has no score.
    """
    wanted = number if number is not None else _best(store, study)
    found = store.trials.get(study.id, wanted)
    if found is None:
        count = sum(store.studies.counts(study.id).values())
        raise NotFound(f"study {study.name!r} has no trial {wanted}; it has {count}")
    if found.evaluation_id is None or found.value is None:
        why = f" ({found.why})" if found.why else ""
        raise Conflict(f"trial {wanted} of study {study.name!r} is {found.state}{why}; choose a complete one")
    return found


def _best(store: Store, study: Study) -> int:
    """The number of the winner, or of the best trial so far."""
    if study.verdict is not None:
        return int(study.verdict["winner"])
    best = store.trials.best(study.id)
    if best is None:
        raise NotFound(f"study {study.name!r} has no complete trial yet; run it first")
    return best.number


def exportable(store: Store, study: Study, number: int | None) -> Trial:
    """The trial that a service exports: the one with that number, or the winner, of which there is none unjudged.

    Raises:
        Conflict: no trial is named and there is no verdict yet, or the trial has no score.
        NotFound: there is no such trial.
    """
    if number is None and study.verdict is None:
        raise Conflict(
            f"study {study.name!r} is {study.state} and has no verdict, so there is no winner to export; "
            "wait until it is finished, or name a complete trial"
        )
    return chosen_trial(store, study, number)
