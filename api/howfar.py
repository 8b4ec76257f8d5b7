"""How far a study's search is, for whoever shows studies."""

from dataclasses import dataclass

from db.records import Study
from db.store import Store
from search.searchspec import SearchSpec
from search.standings import search_sets
from search.stopping.ledger import ledger_of
from search.stopping.limits import Limits, Spent, most_trials


@dataclass(frozen=True)
class HowFar:
    """How many trials are asked for (None: as many as the budget allows), and how much of the nearest limit is used."""

    asked: int | None
    share: float


def how_far(store: Store, study: Study) -> HowFar:
    """How far it is, as its rows say."""
    search = SearchSpec.model_validate(study.spec["search"])
    counts, scored = store.studies.counts(study.id), 0
    if search.budget.documents is not None:  # else the trials need not be read
        sets = search_sets(store.studies.documents(study.id))
        scored = ledger_of(sets, store.trials.all(study.id)).documents
    share = Limits(search, 0).share(Spent(sum(counts.values()) - counts.get("open", 0), scored, study.searched_seconds))
    return HowFar(most_trials(search), min(1.0, share))
