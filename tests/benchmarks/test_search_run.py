"""Real searches on the smallest zoo: everybody's documents are counted alike, and the budget is kept."""

from contextlib import closing
from pathlib import Path

import pytest

from api.prepared import Fingerprinted, Prepared, prepare
from benchmarks.search_entrants import Entrant, layered, study_of
from benchmarks.search_items import ItemCache
from benchmarks.search_lab import BACKWARD, BudgetSpent, SearchLab, mean_of
from benchmarks.search_run import SHARES, Terms, run_search
from evaluation.result import Scored
from merging.recipe import GroupMerge, Recipe, Slice
from search.starts.known import default_start
from zoo.make import Zoo

TERMS = Terms(16, 0.6)


def _prepared(nano: Zoo, *methods: str) -> Prepared:
    asked = Entrant({**layered(methods or ("task_arithmetic",)), "layers": 1}, {"strategy": "random"}, 1)
    return prepare(study_of(nano, asked, 0, 16, None, 0.6), Fingerprinted(None))


def _start(prepared: Prepared) -> Recipe:
    start = default_start(prepared.space, prepared.space.methods[0])
    assert start is not None
    return start.recipe


def test_documents_count_once_where_a_search_reuses_them_and_the_budget_is_kept(nano: Zoo, tmp_path: Path) -> None:
    prepared = _prepared(nano)
    recipe = _start(prepared)
    with closing(ItemCache(tmp_path / "nano.items")) as cache:
        lab = SearchLab(nano, prepared, cache, tmp_path / "artefacts", budget=1e9)
        few, every = lab.first(5), lab.first(None)
        first = lab.evaluate(recipe, few)
        assert isinstance(first, Scored) and lab.spent == 5 * len(prepared.suite.tasks) and lab.full == []
        second = lab.evaluate(recipe, every)
        assert isinstance(second, Scored) and lab.spent == 5 * len(prepared.suite.tasks) + lab.documents
        assert [(full.recipe, full.documents) for full in lab.full] == [(recipe, lab.spent)]
        poor = SearchLab(nano, prepared, cache, tmp_path / "artefacts", budget=lab.documents - 1)
        with pytest.raises(BudgetSpent):
            poor.evaluate(recipe, every)
        assert poor.spent == 0
        assert poor.score(recipe, "search") == lab.score(recipe, "search") == mean_of(lab.full[-1].scores)


def test_what_methods_look_at_before_they_merge_counts_once_a_search(nano: Zoo, tmp_path: Path) -> None:
    prepared = _prepared(nano, "fisher")
    recipe = _start(prepared)
    with closing(ItemCache(tmp_path / "nano.items")) as cache:
        counted = []
        for _ in range(2):  # the second finds all of it on the disk
            lab = SearchLab(nano, prepared, cache, tmp_path / "artefacts", budget=1e9)
            lab.evaluate(recipe, lab.first(5))
            before = lab.measured
            lab.evaluate(recipe, lab.first(6))
            assert lab.measured == before
            counted.append(before)
    assert counted[0] == counted[1] >= BACKWARD * lab.documents
    assert lab.spent == counted[0] + (5 + 6) * len(prepared.suite.tasks)


@pytest.mark.parametrize("name", ["known", "random", "tpe:off"])
def test_a_search_is_run_to_its_end_and_again_for_nothing(nano: Zoo, tmp_path: Path, name: str) -> None:
    line = run_search("nano", nano, name, 0, TERMS, tmp_path)
    assert line.rival == (name != "tpe:off")
    assert [point.share for point in line.curve] == list(SHARES)
    assert line.curve[-1].holdout is not None and line.spent <= TERMS.evaluations * line.documents
    assert line.spent == line.evaluations * line.documents  # nobody here stops early
    again = run_search("nano", nano, name, 0, TERMS, tmp_path)
    assert again.curve == line.curve and again.spent == line.spent


def test_recipes_of_other_depth_are_scored_and_counted_too(nano: Zoo, tmp_path: Path) -> None:
    prepared = _prepared(nano)
    layers = prepared.setup["layer_count"]

    def of_depth(depth: int) -> GroupMerge:
        return GroupMerge(layers=(0, depth), method="task_arithmetic", weights=dict.fromkeys(nano.experts, 0.3))

    flat = _start(prepared).model_copy(update={"groups": (of_depth(layers),)})
    slices = (Slice(layers=(0, layers)), Slice(layers=(layers - 1, layers)))
    deeper = flat.model_copy(update={"groups": (of_depth(layers + 1),), "slices": slices})
    with closing(ItemCache(tmp_path / "nano.items")) as cache:
        lab = SearchLab(nano, prepared, cache, tmp_path / "artefacts", budget=1e9)
        found = [lab.evaluate(recipe, lab.first(None)) for recipe in (flat, deeper, flat)]
        assert all(isinstance(outcome, Scored) for outcome in found) and lab.spent == 3 * lab.documents
        assert lab.full[0].scores == lab.full[2].scores != lab.full[1].scores
    line = run_search("nano", nano, "layer_order", 0, TERMS, tmp_path)
    assert line.curve[-1].holdout is not None and line.spent <= TERMS.evaluations * line.documents
