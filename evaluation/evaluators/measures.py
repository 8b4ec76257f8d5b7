"""How items become a task's value and standard error: lm-eval's own functions, by their names.

Importing it takes a second (lm-eval), so import it where it is used.
"""

from collections.abc import Sequence
from typing import Any

from lm_eval.api.metrics import mean_stderr
from lm_eval.api.registry import AGGREGATION_REGISTRY

from evaluation.statistics import Aggregation


def aggregation(name: str) -> Aggregation:
    """lm-eval's aggregation of that name (`mean`, `bits_per_byte`, `weighted_perplexity`)."""
    import lm_eval.api.metrics  # noqa: F401  (registers them)

    return Aggregation(name, AGGREGATION_REGISTRY[name])


def mean_error(items: Sequence[Any]) -> float | None:
    """lm-eval's standard error of a mean; None for fewer than two items."""
    return float(mean_stderr(items)) if len(items) > 1 else None
