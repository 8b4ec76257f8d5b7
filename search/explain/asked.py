"""What must be scored to explain a winner: which changes of its recipe, and on which of the search documents.

Few documents are enough to see what matters, and every change costs as many: at most `MOST_EXPERTS + 2` changes on the
largest rung of at most `MOST_DOCUMENTS`. All of it follows from rows, so nothing needs to be written down.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from db.records import DocumentSet, Study, Trial
from db.store import Store
from search.explain.changes import Change, changes, unused, weighty
from search.racing.rungs import EXPLAINED
from search.standings import search_sets
from search.starts.start import is_baseline
from search.study import StudySpec

MOST_DOCUMENTS = EXPLAINED


@dataclass(frozen=True)
class Asked:
    """What is scored of a winner.

    Attributes:
        documents: of that rung, for each task that has any there.
        unused: experts whose weights are 0 everywhere.
        inseparable: experts with the largest weights who cannot be left out all the same.
    """

    rung: int
    documents: Mapping[str, tuple[int, ...]]
    changes: tuple[Change, ...]
    unused: tuple[str, ...]
    inseparable: tuple[str, ...]


def asked(store: Store, study: Study, winner: Trial) -> Asked | None:
    """What is scored of that winner; None: it is a baseline, which speaks for itself, or every rung is too large."""
    if is_baseline(winner.origin) or winner.evaluation_id is None:
        return None
    sets = search_sets(store.studies.documents(study.id))
    rung = _rung(sets)
    if rung is None:
        return None
    documents = {task: ids for task, found in sets.items() if (ids := found.at(rung))}
    recipe = store.evaluations.recipe(winner.evaluation_id)
    made = changes(recipe, study.setup["fingerprints"])
    inseparable = tuple(name for name in weighty(recipe) if name not in [change.expert for change in made])
    return Asked(rung, documents, made, unused(recipe), inseparable)


def is_explained(study: Study) -> bool:
    """Whether the study wants its winner explained."""
    return StudySpec.model_validate(study.spec).search.explain


def _rung(sets: Mapping[str, DocumentSet]) -> int | None:
    """The largest rung with few enough documents; else the smallest, if it has no more than twice as many."""
    rungs = max((len(found.sizes) for found in sets.values()), default=0)
    totals = [sum(found.sizes[rung] for found in sets.values()) for rung in range(rungs)]
    few = [rung for rung, total in enumerate(totals) if 0 < total <= MOST_DOCUMENTS]
    if few:
        return few[-1]
    return next((rung for rung, total in enumerate(totals) if 0 < total <= 2 * MOST_DOCUMENTS), None)
