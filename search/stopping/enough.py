"""Whether a study's budget is enough for what is always tried."""

from collections.abc import Sequence

from db.studies import Documents
from merging.errors import InvalidStudy
from search.standings import search_sets
from search.starts.start import Start
from search.stopping.ending import necessary
from search.stopping.ledger import ledger_of
from search.study import StudySpec


def require_documents(spec: StudySpec, starts: Sequence[Start], documents: Documents) -> None:
    """See that the budget covers the baselines, each scored in full.

    Args:
        starts: what the study begins with.
        documents: its split.

    Raises:
        InvalidStudy: it does not.
    """
    limit, baselines = spec.search.budget.documents, necessary(starts)
    least = baselines * ledger_of(search_sets(documents), ()).whole
    if limit is not None and limit < least:
        problem = f"does not cover the {baselines} baselines (experts, uniform soup), which take {least}"
        raise InvalidStudy("search.budget.documents", limit, problem, f"use {least} or more")
