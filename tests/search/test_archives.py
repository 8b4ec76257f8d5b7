"""Archives of evolution: fitness and novelty by hand, who stays, who is a parent; and complementary sets."""

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.result import TaskScore
from search.evolution.coverage import complementary
from search.evolution.elites import MOST_CELLS, Elites, elites_of
from search.evolution.member import Archive, Member
from search.evolution.niches import Niches, attraction, shared_fitness
from search.evolution.novelty import Novelty, dominated_novelty
from search.evolution.skill import Skill, plain_skill, read_skill
from search.evolution.table import tabulate
from search.evolution.tournament import Tournament

ROWS = ([1, 1, 0], [1, 0, 0], [0, 0, 1])  # of the second, everything is the first's too


def score(task: str, items: Sequence[float], documents: Sequence[int] | None = None, **about: object) -> TaskScore:
    """A task's score, by default of the first documents and their mean."""
    content = {"metric": "acc", "value": float(np.mean(items)), "stderr": None, "higher_is_better": True} | about
    return TaskScore.model_validate(
        content | {"task": task, "documents": tuple(documents or range(len(items))), "items": tuple(map(float, items))}
    )


def skill(**tasks: Sequence[float]) -> Skill:
    """A skill by task."""
    return read_skill([score(task, items) for task, items in tasks.items()], {})


def member(number: int, *, violation: float = 0.0, stopped: bool = False, **tasks: Sequence[float]) -> Member[int]:
    """A trial whose value is the mean of its tasks, and whose genome is its number."""
    value = float(np.mean([np.mean(items) for items in tasks.values()]))
    return Member(number, number, value, skill(**tasks), violation, stopped)


def added(archive: Archive[int], members: Sequence[Member[int]]) -> list[int]:
    """The numbers an archive keeps of these."""
    for each in members:
        archive.add(each)
    return [m.number for m in archive.members]


def test_fitness_is_shared_and_attraction_is_what_the_other_lacks() -> None:
    table = tabulate([skill(t=row) for row in ROWS], {})
    assert shared_fitness(table) == pytest.approx([1.5 / 3, 0.5 / 3, 1 / 3])
    assert attraction(table, 0) == pytest.approx([0, 0, 1 / 3])
    assert attraction(table, 1) == pytest.approx([1 / 3, 0, 1 / 3])


def test_a_score_between_is_worth_what_the_best_has() -> None:
    """c = .8, z = 1.2: .8 * .8 / 1.2 and .4 * .8 / 1.2."""
    table = tabulate([skill(t=[0.8]), skill(t=[0.4])], {})
    assert shared_fitness(table) == pytest.approx([0.64 / 1.2, 0.32 / 1.2])


def test_a_task_counts_by_its_weight_and_not_by_its_documents() -> None:
    large, small = {"a": [1.0] * 100, "b": [0.0]}, {"a": [0.0] * 100, "b": [1.0]}
    found = tabulate([skill(**large), skill(**small)], {})
    assert shared_fitness(found) == pytest.approx([0.5, 0.5])
    assert shared_fitness(tabulate([skill(**large), skill(**small)], {"a": 1.0, "b": 3.0})) == pytest.approx(
        [0.25, 0.75]
    )


def test_tasks_of_no_weight_are_left_out_and_less_may_be_better() -> None:
    scores = [score("a", [1, 0]), score("idle", [1, 1]), score("loss", [2.0, 3.0], higher_is_better=False)]
    read = read_skill(scores, {"a": 1.0, "idle": 0.0})
    assert set(read.values) == {"a", "loss"} and read.values["loss"].tolist() == [-2.0, -3.0]
    assert read.values["a"].dtype == np.float32


def test_a_metric_without_a_value_of_one_document_counts_as_the_task_s() -> None:
    read = read_skill([score("t", [1, 0, 1], value=0.77, metric="f1")], {})
    assert read.values["t"] == pytest.approx([0.77] * 3)


def test_other_scores_are_counted_from_the_worst_in_units_of_what_documents_range() -> None:
    table = tabulate([skill(t=[-5.0, -1.0]), skill(t=[-3.0, -1.0]), skill(t=[-4.0, -1.0])], {})
    assert table.scores[:, 1].tolist() == [0, 0, 0], "where all are alike nobody gains"
    assert table.scores[0, 0] == 0.0 and 0.0 < table.scores[2, 0] < table.scores[1, 0] <= 1.0


def test_what_was_not_scored_is_estimated_from_those_who_have_it_all() -> None:
    """On documents 0 and 1 the first has 1.0 and the second .5; the rest is .5 below the first's, but not below 0."""
    known = read_skill([score("t", [1, 1, 1, 0])], {})
    fewer = read_skill([score("t", [1, 0], [0, 1])], {})
    table = tabulate([known, fewer], {})
    assert table.scores[1].tolist() == [1.0, 0.0, 0.5, 0.0]
    assert tabulate([fewer, fewer], {}).scores.tolist() == [[1.0, 0.0]] * 2, "of what nobody has nothing is said"
    assert table.worth.tolist() == [1.0] * 4, "they are right or wrong all the same"


def test_niches_keep_a_specialist_that_plain_elitism_loses() -> None:
    """Five recipes solve the same six documents of ten; one solves the other four alone."""
    crowd = [member(n, t=[1] * 6 + [0] * 4) for n in range(5)]
    alone = member(5, t=[0] * 6 + [1] * 4)
    assert 5 in added(Niches(3, {}), [*crowd[:2], alone, *crowd[2:]])
    assert 5 not in added(Tournament(3), [*crowd[:2], alone, *crowd[2:]])
    niches: Niches[int] = Niches(3, {})
    added(niches, [*crowd[:2], alone])
    pairs = [niches.parents(np.random.default_rng(seed), 0) for seed in range(60)]
    assert all(pair and (5 in (pair[0].number, pair[1].number)) for pair in pairs), "only it adds to the others"


ARCHIVES: Mapping[str, Callable[[int], Archive[int]]] = {
    "niches": lambda size: Niches(size, {}),
    "novelty": lambda size: Novelty(size, {}),
    "tournament": lambda size: Tournament(size),
    "elites": lambda size: Elites({}),
}


def crowd(seed: int, count: int = 30) -> list[Member[int]]:
    """Trials of two tasks, some stopped, some beyond the constraints."""
    rng = np.random.default_rng(seed)
    found = []
    for number in range(count):
        items = (rng.random((2, 12)) < rng.random()).astype(float)
        beyond = float(rng.random() < 0.3) * float(rng.random())
        found.append(member(number, violation=beyond, stopped=rng.random() < 0.2, a=items[0], b=items[1]))
    return found


@pytest.mark.parametrize("kind", ARCHIVES)
def test_the_best_stays_and_an_archive_repeats(kind: str) -> None:
    for seed in range(5):
        members = crowd(seed)
        whole = [m for m in members if not m.stopped and not m.violation]
        best = max(whole, key=lambda m: m.rank)
        first, again = ARCHIVES[kind](4), ARCHIVES[kind](4)
        assert best.number in added(first, members)
        assert added(again, members) == [m.number for m in first.members]
        for number in range(6):
            drawn = [archive.parents(np.random.default_rng(number), number) for archive in (first, again)]
            assert drawn[0] == drawn[1] and drawn[0] is not None and drawn[0][0] is not drawn[0][1]


@pytest.mark.parametrize("kind", ARCHIVES)
def test_an_empty_archive_has_no_parents_and_a_single_member_is_both(kind: str) -> None:
    archive = ARCHIVES[kind](4)
    assert archive.parents(np.random.default_rng(0), 0) is None
    one = Member(7, 7, 0.5, plain_skill(0.5))
    archive.add(one)
    assert archive.parents(np.random.default_rng(0), 0) == (one, one)


@pytest.mark.parametrize("kind", ["niches", "novelty", "tournament"])
def test_whoever_is_beyond_the_constraints_goes_first_the_farthest_before_the_rest(kind: str) -> None:
    within = [member(n, t=[0] * n + [1] + [0] * (3 - n)) for n in range(3)]
    beyond = [member(n, violation=n / 10, t=[1, 1, 1, 1]) for n in (3, 4)]
    archive = ARCHIVES[kind](4)
    assert added(archive, [*beyond, *within]) == [3, 0, 1, 2]
    assert added(archive, [member(9, t=[0, 0, 0, 1])]) == [0, 1, 2, 9]
    first = [pair[0] for seed in range(20) if (pair := archive.parents(np.random.default_rng(seed), 0))]
    assert not any(m.violation for m in first)


def test_elites_are_the_best_of_their_cells() -> None:
    """Quality is task 0; of task 1 all but the last lie in the lowest and highest cells."""
    quality = np.array([[0.9, 0.00], [0.5, 0.01], [0.4, 1.00], [0.8, 0.99], [0.1, 0.50]])
    alike = [(0.0, True)] * 5
    assert elites_of(quality, 0, alike) == [0, 3, 4]
    stopped = [(0.0, False), *alike[1:]]
    assert elites_of(quality, 0, stopped) == [1, 3, 4], "what was stopped takes no cell from what was not"
    beyond = [(-0.1, True), *alike[1:]]
    assert elites_of(quality, 0, beyond) == [1, 3, 4]


@pytest.mark.parametrize("tasks", [1, 2, 3, 4, 9, 30])
def test_an_archive_of_elites_is_bounded_with_any_number_of_tasks(tasks: int) -> None:
    quality = np.random.default_rng(tasks).random((3000, tasks))
    found = elites_of(quality, 0, [(0.0, True)] * 3000)
    assert len(found) <= MOST_CELLS and int(quality[:, 0].argmax()) in found


def test_the_task_whose_elites_are_parents_takes_turns() -> None:
    """Of task a 0 and 1 are the elites, of b 2 and 3: whoever has less of one with the same of the other is none."""
    archive: Elites[int] = Elites({})
    items = {0: ([1, 1, 1, 1], [0, 0]), 1: ([1, 1, 1, 0], [1, 1])}
    weaker = {2: ([0, 0, 0, 0], [0, 0]), 3: ([1, 0, 0, 0], [1, 1])}
    kept = added(archive, [member(n, a=a, b=b) for n, (a, b) in (items | weaker).items()])
    assert kept == [0, 1, 2, 3]
    for number in range(10):
        pair = archive.parents(np.random.default_rng(number), number)
        of_task_a = {0, 1}  # in the cells of b: 0 of none, 1 of all
        assert pair is not None and (number % 2 == 1 or {m.number for m in pair} == of_task_a)


def test_whoever_is_an_elite_of_no_task_is_dropped() -> None:
    archive: Elites[int] = Elites({})
    added(archive, [member(0, a=[1, 1, 0], b=[0, 0, 0]), member(1, a=[0, 0, 0], b=[1, 1, 0])])
    assert added(archive, [member(2, a=[1, 1, 0], b=[0, 0, 0])]) == [0, 1], "of equals the first stays"


def test_novelty_is_what_the_nearest_of_the_fitter_do_not_solve() -> None:
    """Solved by 2, 1 and 1 of three: difficulty 1/3, 2/3, 2/3 of 5/3. The third alone solves document 2."""
    table = tabulate([skill(t=row) for row in ROWS], {})
    assert dominated_novelty(table, [(0, 0.67, 0), (0, 0.33, -1), (0, 0.33, -2)]) == pytest.approx([np.inf, 0.0, 0.4])


def test_novelty_takes_the_three_nearest_only() -> None:
    """Four fitter ones: three twins that leave one document of two to it, and one that leaves both."""
    rows = [[1, 0, 1], [1, 0, 1], [1, 0, 1], [0, 0, 1], [1, 1, 0]]
    table = tabulate([skill(t=row) for row in rows], {})
    difficulty = np.array([0.2, 0.8, 0.2])
    expected = difficulty[1] / difficulty.sum()
    assert dominated_novelty(table, [(0, float(9 - i), 0) for i in range(5)])[4] == pytest.approx(expected)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10_000), st.integers(1, 4))
def test_a_complementary_set_is_found_greedily_and_near_the_best_of_all(seed: int, size: int) -> None:
    rng = np.random.default_rng(seed)
    recipes = [
        [score("a", rng.integers(0, 2, 9).tolist()), score("b", rng.integers(0, 2, 4).tolist())] for _ in range(7)
    ]
    weights = {"a": 1.0, "b": 2.0}
    found = complementary(recipes, weights, size)

    def covered(places: Sequence[int]) -> float:
        tasks = [np.max([recipes[i][t].items for i in places], axis=0).mean() for t in (0, 1)]
        return float((tasks[0] + 2 * tasks[1]) / 3)

    best = max(covered(places) for places in combinations(range(7), size))
    assert found.coverage == pytest.approx([covered(found.places[: k + 1]) for k in range(len(found.places))])
    assert (1 - 1 / np.e) * best <= found.coverage[-1] <= best + 1e-9
    for k, place in enumerate(found.places):  # each is the best next
        assert covered(found.places[: k + 1]) == pytest.approx(max(covered([*found.places[:k], i]) for i in range(7)))
        assert place not in found.places[:k]
    if len(found.places) < size:
        assert found.coverage[-1] == pytest.approx(covered(range(7))), "it ends only where nobody adds anything"


def test_a_complementary_set_prefers_the_other_skill_to_the_second_best() -> None:
    recipes = [[score("t", row)] for row in ([1, 1, 1, 0], [1, 1, 0, 0], [0, 0, 0, 1])]
    found = complementary(recipes, {"t": 1.0}, 2)
    assert found.places == (0, 2) and found.coverage == pytest.approx((0.75, 1.0))
    assert complementary([], {}, 3).places == ()
