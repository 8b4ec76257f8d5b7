"""The textbook's paired tests, over the documents of all tasks that count, each document alike.

Unlike the permutation test of the objective they know no weights of tasks; they stand beside it in the verdict.
"""

from collections.abc import Sequence

import numpy as np

from evaluation.constraints import right_or_wrong
from evaluation.result import TaskScore
from evaluation.statistics.measure import Floats, Measure, document_values, require_same_documents


def mcnemar_p(measure: Measure, first: Sequence[TaskScore], second: Sequence[TaskScore]) -> float | None:
    """Two-sided p of McNemar's exact test: of the documents that only one has right, is it one more often?

    Returns:
        None where an item is neither right nor wrong (0 or 1).

    Raises:
        InvalidInput: the candidates were not scored on the same documents.
    """
    require_same_documents(first, second)
    if not all(map(right_or_wrong, (*measure.counting(first), *measure.counting(second)))):
        return None
    differences = _differences(measure, first, second)
    if differences is None:
        return None
    gained, lost = int(np.sum(differences > 0)), int(np.sum(differences < 0))
    if gained + lost == 0:
        return 1.0
    from scipy.stats import binomtest  # a second to import, and the service's API has none

    return float(binomtest(gained, gained + lost).pvalue)


def wilcoxon_p(measure: Measure, first: Sequence[TaskScore], second: Sequence[TaskScore]) -> float | None:
    """Two-sided p of Wilcoxon's signed-rank test of the documents' differences; ties left out.

    Returns:
        None where a document has no value alone (f1).

    Raises:
        InvalidInput: the candidates were not scored on the same documents.
    """
    require_same_documents(first, second)
    differences = _differences(measure, first, second)
    if differences is None or not np.isfinite(differences).all():
        return None
    differences = differences[differences != 0]
    if len(differences) == 0:
        return 1.0
    from scipy.stats import wilcoxon

    # scipy's own choice would be the exact distribution up to 50 documents, which ties make wrong
    tied = len(np.unique(np.abs(differences))) < len(differences)
    method = "approx" if tied or len(differences) > 50 else "exact"
    return float(wilcoxon(differences, method=method, correction=method == "approx").pvalue)


def _differences(measure: Measure, first: Sequence[TaskScore], second: Sequence[TaskScore]) -> Floats | None:
    """First minus second, larger being better, of every document: [documents of all tasks that count]."""
    others = {s.task: s for s in second}
    found = []
    for task in measure.counting(first):
        ours, theirs = document_values(measure, task), document_values(measure, others[task.task])
        if ours is None or theirs is None:
            return None
        with np.errstate(invalid="ignore"):  # infinitely bad both: no difference that could be ranked
            found.append(ours - theirs)
    return np.concatenate(found)
