"""Whether a study that has ended has something left to do when it is run again, perhaps with other limits."""

from collections.abc import Sequence

from db.records import Study, Trial
from db.studies import Documents
from search.standings import search_sets
from search.stopping.ended import Ended
from search.stopping.ledger import ledger_of
from search.stopping.limits import Limits, Spent
from search.study import StudySpec
from search.twins import searched

_LIMITS = ("trials", "budget", "stop")  # of the section `search`


def is_over(study: Study, spec: StudySpec, trials: Sequence[Trial], documents: Documents) -> bool:
    """Whether the verdict that a study has stands.

    Args:
        spec: with its limits as they are now.
        trials: all that it has.
        documents: its split, as the store has them.
    """
    if study.verdict is None:
        return False
    ended = None if study.ended is None else Ended.model_validate(study.ended)
    if study.verdict["exhausted"] or (ended is not None and ended.reason == "exhausted"):
        return True
    ledger = ledger_of(search_sets(documents), trials)
    spent = Spent(len(searched(trials)), ledger.documents, study.searched_seconds)
    if Limits(spec.search, ledger.whole).reached(spent) is not None:
        return True
    before = StudySpec.model_validate(study.spec)
    same = all(getattr(before.search, key) == getattr(spec.search, key) for key in _LIMITS)
    return ended is not None and ended.reason == "gain" and same
