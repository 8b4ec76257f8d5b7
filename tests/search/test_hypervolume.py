"""The hypervolume: against hand-worked cases and against counting the cells of a grid."""

import numpy as np
import pytest

from search.hypervolume import Floats, front, hypervolume, undominated


def drawn(seed: int, count: int, objectives: int) -> Floats:
    """Points on a grid of tenths, so that ties are common and cells can be counted."""
    return np.random.default_rng(seed).integers(0, 8, (count, objectives)) / 8.0


def cells(objectives: int) -> Floats:
    """The middles of all cells of the grid."""
    axis = (np.arange(8) + 0.5) / 8.0
    return np.stack([each.ravel() for each in np.meshgrid(*[axis] * objectives)], axis=1)


def dominated(middles: Floats, points: Floats) -> np.ndarray:
    return np.any(np.all(points[None, :, :] >= middles[:, None, :], axis=2), axis=1)


def test_a_hand_worked_case() -> None:
    points = np.array([[3.0, 1.0], [2.0, 2.0], [1.0, 3.0], [1.0, 1.0], [2.0, 2.0]])
    assert front(points).tolist() == [0, 1, 2], "of equal points the first"
    assert hypervolume(points, np.zeros(2)) == 6.0
    assert hypervolume(points, np.array([1.0, 1.0])) == 1.0
    assert hypervolume(points, np.array([5.0, 5.0])) == 0.0


@pytest.mark.parametrize("objectives", [1, 2, 3, 4])
@pytest.mark.parametrize("seed", range(6))
def test_it_is_the_share_of_cells_that_are_dominated(objectives: int, seed: int) -> None:
    points = drawn(seed, 3 + 2 * seed, objectives)
    expected = dominated(cells(objectives), points).sum() / 8**objectives
    assert hypervolume(points, np.zeros(objectives)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("objectives", [1, 2, 3, 4])
@pytest.mark.parametrize("count", [0, 1, 9])
def test_the_boxes_hold_every_cell_that_is_not_dominated_once(objectives: int, count: int) -> None:
    points, middles = drawn(count, count, objectives), cells(objectives)
    lower, upper = undominated(points, np.zeros(objectives))
    inside = np.all((middles[:, None] > lower) & (middles[:, None] < upper), axis=2).sum(axis=1)
    assert inside.tolist() == (~dominated(middles, points)).astype(int).tolist()
