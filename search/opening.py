"""What a search begins with: its starts and its strategy, before anything was tried."""

from collections.abc import Mapping
from typing import Any

from merging.profile import Profile
from search.judge import Judge
from search.planning import POOLED, expected_trials
from search.space import Space
from search.starts.given import Given
from search.starts.pool import starts, warm_starts
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
        setup: what was found out about the study when it was created (`profile`, `starts`, `most_starts`).

    Raises:
        InvalidStudy: the strategy cannot search that space.
    """
    setup = setup or {}
    found = setup.get("profile")
    profile = None if found is None else Profile.model_validate(found)
    name, search = spec.search.strategy, spec.search
    begin = fixed_starts(spec, space, setup)
    if STRATEGIES[name].warm and "starts" in setup:  # a study of before there was a pool has none
        most = setup["most_starts"] if "most_starts" in setup else most_starts(spec, len(begin), setup)
        begin = warm_starts(space, begin, _given(setup), profile, most, answers=setup.get("answers", False))
    objectives = sum(t.weight > 0 for t in spec.evaluation.tasks) if spec.objective == "pareto" else 1
    options = options_of(name, search.options)
    weights = {t.name: t.weight for t in spec.evaluation.tasks}
    judge = Judge(spec, tuple(space.experts))
    trials = _trials(spec, setup)
    opening = Opening(space, search.seed, begin, trials, objectives, options, profile, weights, judge)
    return begin, make_strategy(name, opening)


def fixed_starts(spec: StudySpec, space: Space, setup: Mapping[str, Any]) -> tuple[Start, ...]:
    """The starts that are tried however few trials there are: those of every study, and its user's recipes."""
    return starts(space, Judge(spec, tuple(space.experts)).needs, _given(setup))


def most_starts(spec: StudySpec, fixed: int, setup: Mapping[str, Any]) -> int:
    """The most other starts of a study with so many fixed ones. Found once: more trials later change no start."""
    most = spec.search.starts.most
    return max(0, _trials(spec, setup) // POOLED - fixed) if most is None else most


def _trials(spec: StudySpec, setup: Mapping[str, Any]) -> int:
    return expected_trials(spec, next(reversed(setup.get("rungs", ())), 0))


def _given(setup: Mapping[str, Any]) -> dict[str, Given]:
    return {origin: Given.model_validate(given) for origin, given in setup.get("starts", {}).items()}
