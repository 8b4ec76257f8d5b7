"""Other people's searches: as they are set by their authors, repeatable, and recommending what their rule says."""

from importlib.util import find_spec
from statistics import fmean

import pytest

from benchmarks.rivals.contract import Rival, Setting
from benchmarks.search_entrants import RIVALS
from merging.recipe import Recipe

NEEDS = {"mergekit_evolve": "cma", "mergenetic": "pymoo", "auto_merge_llm": "smac"}
pytestmark = pytest.mark.filterwarnings("ignore")  # of packages that are not ours
EXPERTS = {"add": "/zoo/add", "rev": "/zoo/rev", "srt": "/zoo/srt"}
ORDER = {"zoo_add": tuple(range(200)), "zoo_rev": tuple(range(160))}
SETTING = Setting("/zoo/base", EXPERTS, layers=4, seed=3, evaluations=40, order=ORDER)


def _rival(name: str, setting: Setting = SETTING) -> Rival:
    package = NEEDS.get(name.partition(":")[0])
    if package and find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    return RIVALS[name](setting)


def _value(recipe: Recipe) -> float:
    """Best where all weights are 0.3, whatever the method."""
    return 1.0 - fmean((weight - 0.3) ** 2 for group in recipe.groups for weight in group.weights.values())


def _run(name: str, questions: int) -> tuple[Rival, list[Recipe]]:
    rival, asked = _rival(name), []
    for _ in range(questions):
        question = rival.ask()
        assert question is not None and question.recipe is not None
        asked.append(question.recipe)
        rival.tell(_value(question.recipe))
    return rival, asked


@pytest.mark.parametrize("name", [name for name in RIVALS if name != "auto_merge_llm"])
def test_a_rival_asks_the_same_again_and_recommends_the_best_it_knows(name: str) -> None:
    rival, asked = _run(name, 14)  # a whole generation of CMA-ES at least
    assert _run(name, 14)[1] == asked
    best = max(asked, key=_value)
    found = rival.recommended()
    assert found is not None and found in asked
    if not name.startswith("mergekit_evolve"):  # which writes its best down when a generation is over
        assert found == best
    assert all(recipe.layer_count == 4 for recipe in asked)


@pytest.mark.parametrize("name", RIVALS)
def test_what_cannot_be_scored_does_not_end_a_search(name: str) -> None:
    rival = _rival(name)
    for value in (None, 0.2, None):
        assert rival.ask() is not None
        rival.tell(value)


def test_mergekit_evolve_begins_around_equal_weights_and_whole_deltas() -> None:
    _, asked = _run("mergekit_evolve:ties", 13)
    weights = [weight for recipe in asked for group in recipe.groups for weight in group.weights.values()]
    densities = [recipe.groups[0].parameters["density"] for recipe in asked]
    assert abs(fmean(weights) - 1 / 3) < 0.1
    assert all(isinstance(each, dict) and max(map(float, each.values())) <= 1.0 for each in densities)
    assert all(group.parameters["normalize"] is True for group in asked[0].groups)


def test_mergekit_evolve_recommends_nothing_before_a_generation_is_over() -> None:
    rival, _ = _run("mergekit_evolve:task_arithmetic:whole", 1)
    assert rival.recommended() is None


def test_auto_merge_begins_with_each_model_alone_on_few_documents() -> None:
    rival, asked = _rival("auto_merge_llm"), []
    for _ in EXPERTS:
        question = rival.ask()
        assert question is not None and question.recipe is not None and question.documents == 60
        rival.tell(_value(question.recipe))
        asked.append(question.recipe)
    alone = [{tuple(group.weights.values()) for group in recipe.groups} for recipe in asked]
    assert sorted(map(sorted, alone)) == [[(0.0, 0.0, 1.0)], [(0.0, 1.0, 0.0)], [(1.0, 0.0, 0.0)]]
    assert rival.recommended() in asked


def test_the_known_end_with_the_last_of_them() -> None:
    rival, asked = _run("known", 14)
    assert rival.ask() is None
    assert [set(recipe.groups[0].weights.values()) for recipe in asked[-2:]] == [{0.9}, {1.0}]
