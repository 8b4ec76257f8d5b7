"""How sure a difference between candidates is: bootstrap intervals and paired tests.

Everything is paired and stratified: documents are resampled within their task, two candidates are compared on the
same documents, and the statistic is the study's objective. Seeds make every result repeat. No torch, no lm-eval.
"""

from evaluation.statistics.exact import mcnemar_p, wilcoxon_p
from evaluation.statistics.intervals import Difference, Interval, bootstrap, compare, paired_interval, resamples
from evaluation.statistics.measure import (
    Aggregation,
    Floats,
    Measure,
    aggregations_of,
    closed_aggregation,
    document_values,
    limited,
    require_same_documents,
    restricted,
    shared,
)
from evaluation.statistics.permutation import p_worse, permutation_p

__all__ = [
    "Aggregation",
    "Difference",
    "Floats",
    "Interval",
    "Measure",
    "aggregations_of",
    "bootstrap",
    "closed_aggregation",
    "compare",
    "document_values",
    "limited",
    "mcnemar_p",
    "p_worse",
    "paired_interval",
    "permutation_p",
    "require_same_documents",
    "resamples",
    "restricted",
    "shared",
    "wilcoxon_p",
]
