"""Which layers the experts changed most, on numbers worked by hand."""

import pytest

from merging.profile import Profile
from search.importance import depth_importance, layer_importance, most_important, smoothed

# two experts, four layers; squared norms (1, 3), (0, 0), (8, 1), (0, 0) against 1, 1, 1, 0 of the base
PROFILE = Profile(
    inner=(((1.0, 0.5), (0.5, 3.0)), ((0.0, 0.0), (0.0, 0.0)), ((8.0, 0.0), (0.0, 1.0)), ((0.0, 0.0), (0.0, 0.0))),
    base=(1.0, 1.0, 1.0, 0.0),
)


def test_smoothing_takes_a_quarter_of_each_neighbour_and_keeps_what_is_even() -> None:
    assert smoothed([4.0, 0.0, 0.0, 8.0]) == (3.0, 1.0, 2.0, 6.0)
    assert smoothed([5.0]) == (5.0,)
    assert smoothed([2.0, 2.0, 2.0]) == (2.0, 2.0, 2.0)


def test_a_layer_s_importance_is_how_far_it_was_moved_for_its_size() -> None:
    # before smoothing 2, 0, 3, and 0 for the layer without weights
    assert layer_importance(PROFILE) == pytest.approx((1.5, 1.25, 1.5, 0.75))


def test_places_get_the_mean_of_the_layers_that_are_nearest() -> None:
    assert depth_importance(PROFILE, (0.25, 0.75)) == pytest.approx((1.375, 1.125))
    assert depth_importance(PROFILE, (0.125, 0.375, 0.625, 0.875)) == pytest.approx((1.5, 1.25, 1.5, 0.75))
    assert depth_importance(PROFILE, (0.5, 0.51))[0] == pytest.approx(1.375), "of equals the first is nearest"


def test_the_most_important_places_are_taken_and_of_equals_the_shallower() -> None:
    places = (0.125, 0.375, 0.625, 0.875)
    assert most_important(PROFILE, places, 1) == {0.125}
    assert most_important(PROFILE, places, 3) == {0.125, 0.375, 0.625}


def test_rounding_below_zero_is_no_movement() -> None:
    tiny = Profile(inner=(((-1e-12,),), ((4.0,),)), base=(1.0, 1.0))
    assert layer_importance(tiny) == pytest.approx((0.5, 1.5))
