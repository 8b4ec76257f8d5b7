"""What a search begins with: its starts and its strategy, before anything was tried."""

from search.judge import Judge
from search.space import Space
from search.starts import Start, starts
from search.strategies.choose import make_strategy
from search.strategies.contract import Strategy
from search.study import StudySpec


def open_search(spec: StudySpec, space: Space) -> tuple[tuple[Start, ...], Strategy]:
    """The starts and the strategy of a study over its space.

    Raises:
        InvalidStudy: the strategy cannot search that space.
    """
    begin = starts(space, Judge(spec, tuple(space.experts)).needs)
    objectives = sum(t.weight > 0 for t in spec.evaluation.tasks) if spec.objective == "pareto" else 1
    return begin, make_strategy(spec.search.strategy, space, spec.search.seed, begin, objectives)
