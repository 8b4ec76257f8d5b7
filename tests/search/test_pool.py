"""The pool of starts: what is in it, in which order, and which of it lies in the space."""

import pytest

from merging.profile import Profile
from search.starts.pool import starts, warm_starts
from tests.search.factories import space_of

PROFILE = Profile(inner=(((4.0, 0, 0), (0, 2.0, 0), (0, 0, 1.0)), ((4.0, 0, 0), (0, 4.0, 0), (0, 0, 1.0))), base=(1, 1))


def test_the_pool_holds_what_needs_no_search_the_likeliest_first() -> None:
    space = space_of()
    found = warm_starts(space, starts(space), {}, PROFILE, 99, answers=True)
    assert [start.origin for start in found] == [
        "expert:a", "expert:b", "expert:c", "uniform_soup", "base", "task_arithmetic:0.3", "task_arithmetic:0.2",
        "task_arithmetic:0.1", "metagpt", "lm_cocktail", "pair:a+b", "pair:a+c", "pair:b+c",
    ]  # fmt: skip
    # the default of task arithmetic is the soup, and so is its weight 1/n


def test_what_the_space_reaches_are_its_points_so_that_strategies_learn_of_them() -> None:
    space = space_of(space={"methods": ["task_arithmetic"], "layers": 2})
    found = {start.origin: start for start in warm_starts(space, starts(space), {}, PROFILE, 99, answers=True)}
    assert [origin for origin, start in found.items() if start.params is None] == ["lm_cocktail"]
    for start in found.values():
        assert start.params is None or space.decode(start.params).to_json() == start.recipe.to_json()


def test_metagpt_weighs_by_squared_norms() -> None:
    space = space_of()
    (start,) = (s for s in warm_starts(space, (), {}, PROFILE, 99) if s.origin == "metagpt")
    assert start.recipe.groups[0].weights == pytest.approx({"a": 8 / 16, "b": 6 / 16, "c": 2 / 16})


def test_without_a_profile_or_answers_their_closed_forms_are_left_out() -> None:
    space = space_of()
    origins = {start.origin for start in warm_starts(space, starts(space), {}, None, 99)}
    assert not origins & {"metagpt", "lm_cocktail"}
