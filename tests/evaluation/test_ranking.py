"""Ranks and fronts against numbers worked by hand, and Kemeny's order against all orders."""

import itertools

import numpy as np
import pytest

from evaluation.ranking import borda, borda_documents, kemeny, knee_marks, pareto_layers, spearman

RNG = np.random.default_rng(5)


def test_borda_is_the_mean_rank_with_ties_shared() -> None:
    table = np.array([[0.9, 0.5, 0.1], [0.2, 0.2, 0.8]])  # ranks 1 2 3 and 2.5 2.5 1
    assert borda(table, [1, 1]) * 3 == pytest.approx([3.5 - 1.75, 3.5 - 2.25, 3.5 - 2.0])
    assert borda(table, [3, 1]) * 3 == pytest.approx([3.5 - 5.5 / 4, 3.5 - 8.5 / 4, 3.5 - 10 / 4])
    assert borda(np.array([[0.3]]), [1]) == pytest.approx([0.5])
    assert borda(np.array([[4.0, 3.0, 2.0, 1.0]]), [1]) == pytest.approx([7 / 8, 5 / 8, 3 / 8, 1 / 8])


def test_one_outstanding_task_does_not_decide_by_rank() -> None:
    table = np.array([[99.0, 0.5, 0.4], [0.1, 0.3, 0.2], [0.1, 0.3, 0.2]])
    assert int(np.argmax(borda(table, [1, 1, 1]))) == 1


def test_two_level_borda_ranks_documents_before_tasks() -> None:
    # on the task's four documents the second is better three times, though its mean is far lower
    first = np.array([[1.0, 2.0], [1.0, 2.0], [1.0, 2.0], [90.0, 0.0]])
    second = np.array([[1.0, 1.0]])
    assert borda_documents([first, second], [1, 1]) == pytest.approx([(2.5 - 1.75) / 2, (2.5 - 1.25) / 2])
    assert borda_documents([first], [1]) == pytest.approx([0.25, 0.75])


def test_two_level_borda_ties_are_ties_whatever_the_order_of_their_sums() -> None:
    task = RNG.random((50, 6))
    twice = np.concatenate([task, task[:, ::-1]])  # every system has its mirror's ranks in another order
    shares = borda_documents([twice], [1])
    assert shares == pytest.approx(shares[::-1], abs=0)


def cost(order: tuple[int, ...], table: np.ndarray, weights: list[float]) -> float:
    return sum(
        weight
        for row, weight in zip(table, weights, strict=True)
        for i, j in itertools.combinations(order, 2)
        if row[i] < row[j]
    )


@pytest.mark.parametrize("systems", [1, 2, 4, 6])
def test_kemeny_is_the_first_of_the_best_of_all_orders(systems: int) -> None:
    for _ in range(8):
        table = RNG.integers(0, 4, (5, systems)).astype(float)  # with ties
        weights = [1.0, 1.0, 0.5, 2.0, 0.1]
        costs = {order: round(cost(order, table, weights), 9) for order in itertools.permutations(range(systems))}
        best = min(costs.values())
        assert tuple(kemeny(table, weights)) == next(order for order, found in costs.items() if found == best)


def test_kemeny_of_eight_is_quick_and_follows_the_majority() -> None:
    order = RNG.permutation(8)
    places = np.argsort(order).astype(float)
    table = np.stack([-places, -places, RNG.random(8)])
    assert kemeny(table, [1, 1, 1]) == order.tolist()


def test_kemeny_and_borda_differ_where_they_should() -> None:
    # three tasks put 0 first, two put it last behind 1: Kemeny follows the majority, Borda counts how far
    table = np.array([[3.0, 2, 1]] * 3 + [[1.0, 3, 2]] * 2)
    assert kemeny(table, [1] * 5)[0] == 0
    assert int(np.argmax(borda(table, [1] * 5))) == 1


def test_fronts_are_taken_away_one_by_one() -> None:
    table = np.array([[1.0, 0.0, 0.5, 0.4, 0.3], [0.0, 1.0, 0.5, 0.4, 0.4]])
    assert pareto_layers(table).tolist() == [0, 0, 0, 1, 2]
    assert pareto_layers(np.array([[0.5, 0.5], [0.5, 0.5]])).tolist() == [0, 0], "equals do not beat each other"


def test_the_knee_is_farthest_from_the_worst_corner() -> None:
    table = np.array([[100.0, 0.0, 80.0], [0.0, 1.0, 0.8]])
    assert knee_marks(table, [1, 1]) == pytest.approx([0.5, 0.5, 0.8])
    assert knee_marks(table, [9, 1]) == pytest.approx([0.9, 0.1, 0.8])
    scaled = knee_marks(np.array([[0.2, 0.9, 0.5], [-30.0, -900.0, -10.0]]), [1, 1], [(0.1, 0.4), (-40.0, 20.0)])
    assert scaled == pytest.approx([(0.25 + 0.5) / 2, (1.2 + 0.0) / 2, (1.0 + 1.2) / 2]), "clipped at both ends"
    assert knee_marks(np.array([[0.3, 0.3], [0.1, 0.2]]), [1, 1]) == pytest.approx([0.5, 1.0])


def test_rank_correlation() -> None:
    assert spearman([1, 2, 3, 4], [10, 200, 3000, 40000]) == pytest.approx(1.0)
    assert spearman([1, 2, 3, 4], [4, 3, 1, 2]) == pytest.approx(1 - 6 * (9 + 1 + 4 + 4) / (4 * 15))
    assert spearman([1, 2], [1, 2]) is None and spearman([1, 1, 1], [1, 2, 3]) is None


def test_equals_have_the_same_share_wherever_they_stand() -> None:
    rng = np.random.default_rng(4)
    for count in range(3, 40):
        table = rng.random((6, count))
        table[:, -1] = table[:, 0]
        shares, marks = borda(table, [0.1, 0.2, 0.3, 0.7, 1 / 3, 1]), knee_marks(table, [0.1, 0.2, 0.3, 0.7, 1 / 3, 1])
        assert shares[0] == shares[-1] and marks[0] == marks[-1]
