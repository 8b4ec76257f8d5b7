"""What a search begins with: its starts and its strategy, before anything was tried."""

from collections.abc import Mapping
from typing import Any

from merging.profile import Profile
from merging.recipe import GroupMerge
from search.judge import Judge
from search.space import Space
from search.starts.pool import SHARE, starts, warm_starts
from search.starts.start import Start
from search.strategies.choose import make_strategy
from search.strategies.contract import Strategy
from search.strategies.declared import STRATEGIES, options_of
from search.strategies.opening import Opening
from search.study import StudySpec


def open_search(
    spec: StudySpec, space: Space, setup: Mapping[str, Any] | None = None
) -> tuple[tuple[Start, ...], Strategy]:
    """The starts and the strategy of a study over its space.

    Args:
        setup: what was found out about the study when it was created (`profile`, `starts`).

    Raises:
        InvalidStudy: the strategy cannot search that space.
    """
    setup = setup or {}
    found = setup.get("profile")
    profile = None if found is None else Profile.model_validate(found)
    name, search = spec.search.strategy, spec.search
    begin = starts(space, Judge(spec, tuple(space.experts)).needs)
    if STRATEGIES[name].warm and "starts" in setup:  # a study of before there was a pool has none
        given = {origin: tuple(map(GroupMerge.model_validate, groups)) for origin, groups in setup["starts"].items()}
        most = max(0, search.trials // SHARE - len(begin)) if search.starts.most is None else search.starts.most
        begin = warm_starts(space, begin, given, profile, most)
    objectives = sum(t.weight > 0 for t in spec.evaluation.tasks) if spec.objective == "pareto" else 1
    options = options_of(name, search.options)
    opening = Opening(space, search.seed, begin, search.trials, objectives, options, profile)
    return begin, make_strategy(name, opening)
