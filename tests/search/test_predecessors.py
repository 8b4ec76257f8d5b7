"""What candidates of earlier studies over the same documents say of a new study's first trials."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import pytest

import search.controller
import search.course
import search.rescoring
from db.records import DocumentSet, Study, Trial
from db.store import Store, open_home
from evaluation.result import Part, Scored, TaskScore
from evaluation.statistics import closed_aggregation, restricted
from evaluation.wanted import Wanted
from merging.recipe import Recipe
from search.controller import Search
from search.judge import Judge
from search.opening import open_search
from search.predecessors import KEY, MOST, Predecessors, find_predecessors
from search.racing.contract import joined
from search.racing.history import ENOUGH
from search.space import make_space
from search.standings import Standings, search_sets
from search.study import StudySpec
from tests.search.factories import LAYERS, answers, create_race
from tests.search.test_race import Killed, finish, items, opened, quality, racing, told

EARLIER = "of earlier studies"
SEARCH: tuple[str, Part] = ("t", "search")
MEAN = {"t": closed_aggregation("mean")}


def split(study: Study, store: Store) -> Mapping[tuple[str, Part], DocumentSet]:
    return store.studies.documents(study.id)


def raced(documents: Mapping[tuple[str, Part], DocumentSet]) -> dict[tuple[str, Part], DocumentSet]:
    """The documents of a study that stops trials early."""
    search = documents[SEARCH]
    return {**documents, SEARCH: replace(search, sizes=(40, 80, len(search.ids)))}


def old_study(home: Path, trials: int = 40) -> tuple[Store, Study]:
    """A home with an earlier study that scored everybody in full."""
    store = open_home(home)
    found = opened(racing("off", trials=trials, name="old", search={"seed": 5}), store)
    finish(found, store)
    return store, found.study


def new_study(store: Store, spec: StudySpec) -> Search:
    """A new study that is told of its predecessors, as `api.creating.create` does it."""
    study = store.studies.find(spec.name)
    if study is None:
        alike = store.studies.find("alike") or create_race(store, racing("history", name="alike"))
        study = create_race(store, spec, about={KEY: find_predecessors(store, spec, split(alike, store))})
    space = make_space(spec, LAYERS)
    return Search(study, spec, spec.search.parallel, space, *open_search(spec, space), lambda told: None)


def true_value(recipe: Recipe) -> float:
    """What a recipe has on all search documents."""
    outcome = answers(quality)(recipe, Wanted("search", {"t": tuple(range(400))}, {}))
    assert isinstance(outcome, Scored)
    return outcome.scores[0].value


def judged_elsewhere(trials: tuple[Trial, ...]) -> list[Trial]:
    return [t for t in trials if EARLIER in (t.why or "")]


def test_an_older_study_judges_the_first_trials_nearer_the_truth_than_few_documents(tmp_path: Path) -> None:
    store, _ = old_study(tmp_path)
    trials = finish(new_study(store, racing("history", trials=40, name="new")), store).trials
    judged = judged_elsewhere(trials)
    assert len(judged) > 5 and not any((t.why or "").startswith("halving") for t in trials)
    # four of its own, of which one had no document right, as one of the others: that counts once
    assert "by 43 trials, 39 of them of earlier studies" in (judged[0].why or "")
    complete = [t for t in trials if t.value is not None and t.estimate is None]
    before = [t for t in complete if (t.told_order or 0) < (judged[-1].told_order or 0)]
    assert len(before) < ENOUGH, "with so many of its own, it learns from those"
    ours, plain = [], []
    for trial in judged:
        assert trial.estimate is not None and trial.evaluation_id is not None
        truth = true_value(store.evaluations.recipe(trial.evaluation_id))
        ours.append(abs(trial.estimate - truth))
        plain.append(abs(trial.steps[-1].value - truth))
    assert fmean(ours) < 0.7 * fmean(plain)


def test_without_any_it_halves(tmp_path: Path) -> None:
    trials = finish(
        new_study(open_home(tmp_path), racing("history", trials=30, name="new")), open_home(tmp_path)
    ).trials
    assert not judged_elsewhere(trials) and any((t.why or "").startswith("halving") for t in trials)


def test_killed_anywhere_it_decides_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = racing("history", trials=24, name="new")
    store, _ = old_study(tmp_path / "one")
    undisturbed = finish(new_study(store, spec), store).trials
    store, _ = old_study(tmp_path / "two")
    passed = deaths = 0

    def die(point: str) -> None:
        nonlocal passed
        passed += 1
        if passed % 37 == 0:
            raise Killed

    while True:
        try:
            with pytest.MonkeyPatch.context() as patch:
                for module in (search.controller, search.course, search.rescoring):
                    patch.setattr(module, "fault_point", die)
                again = finish(new_study(store, spec), store).trials
            break
        except Killed:
            deaths += 1
            if deaths == 1:  # what others come to afterwards changes nothing: the predecessors are written down
                finish(opened(racing("off", trials=20, name="beside", search={"seed": 9}), store), store)
    assert deaths >= 2 and judged_elsewhere(again) and told(again) == told(undisturbed)


def test_predecessors_are_whoever_was_scored_on_all_of_the_documents_spread_over_their_study(tmp_path: Path) -> None:
    store, study = old_study(tmp_path, trials=20)
    spec, documents = racing("history"), raced(split(study, store))
    every = [t.evaluation_id for t in reversed(store.trials.all(study.id))]
    assert find_predecessors(store, spec, documents) == every
    fewer = raced({SEARCH: replace(documents[SEARCH], ids=documents[SEARCH].ids[:300])})
    assert find_predecessors(store, spec, fewer) == every, "a split that holds out more"
    reported = {**documents, ("r", "search"): DocumentSet(tuple(range(50)), (0, 0, 50), "r")}
    assert find_predecessors(store, spec, reported) == every, "of what is only reported no race knows"
    assert find_predecessors(store, racing("halving"), documents) == []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("search.predecessors.MOST", 5)
        assert find_predecessors(store, spec, documents) == every[::4]


def test_a_recipe_that_several_studies_tried_is_one_predecessor(tmp_path: Path) -> None:
    store, study = old_study(tmp_path, trials=20)
    finish(opened(racing("off", trials=20, name="again", search={"seed": 5}), store), store)
    again = store.studies.get("again")
    found = find_predecessors(store, racing("history"), raced(split(study, store)))
    assert found == [t.evaluation_id for t in reversed(store.trials.all(again.id))]


def test_what_the_study_has_tried_itself_counts_once(tmp_path: Path) -> None:
    store, _ = old_study(tmp_path, trials=20)
    found = new_study(store, racing("history", name="new"))
    standings = Standings(store, found.study, Judge(found.spec, ("a", "b", "c")))
    others = standings.predecessors(0)
    assert others is not None
    own = replace(others, **{name: getattr(others, name)[3:7] for name in ("values", "on_rung", "items", "params")})
    both = joined(replace(own, numbers=(0, 1, 2, 3)), others)
    assert both.numbers == (0, 1, 2, 3) and len(both.values) == len(both.params) == 20
    assert sorted(both.values) == sorted(others.values) and both.items.shape == others.items.shape


@pytest.mark.parametrize("change", [{"digest": "other"}, {"digest": None}, {"ids": (*range(399), 420)}])
def test_of_other_tasks_or_documents_there_are_none(change: dict[str, object], tmp_path: Path) -> None:
    store, study = old_study(tmp_path, trials=20)
    found = raced(split(study, store))[SEARCH]
    assert find_predecessors(store, racing("history"), {SEARCH: replace(found, **change)}) == []  # type: ignore[arg-type]
    assert find_predecessors(store, racing("history"), {("u", "search"): found}) == []
    assert find_predecessors(store, racing("history"), {SEARCH: replace(found, sizes=(400,))}) == [], "no race at all"


def test_they_are_valued_as_the_new_study_values_and_on_its_documents(tmp_path: Path) -> None:
    store, study = old_study(tmp_path, trials=20)
    found = new_study(store, racing("history", name="new"))
    documents = search_sets(split(found.study, store))["t"]
    half = replace(documents, ids=documents.ids[:200], sizes=(40, 80, 200))  # of a study that holds out more
    reported = DocumentSet(tuple(range(50)), (0, 0, 50), "r")

    def value(scores: Sequence[TaskScore], rung: int) -> float:
        return -restricted(scores, {"t": half.at(rung)}, MEAN)[0].value

    evaluations = [t.evaluation_id or 0 for t in store.trials.all(study.id)]
    past = Predecessors(store, {"t": half, "r": reported}, evaluations, value).at(1)
    assert past is not None and past.numbers == () and past.documents == {"t": half.ids[:80]}
    rows = [[items(store, t)[i] for i in half.ids] for t in store.trials.all(study.id)]
    assert past.values.tolist() == pytest.approx([-fmean(row) for row in rows])
    assert past.on_rung.tolist() == pytest.approx([-fmean(row[:80]) for row in rows])
    assert past.items.tolist() == [row[:80] for row in rows] and len(past.params) == 20 <= MOST
    whole = Standings(store, found.study, Judge(found.spec, ("a", "b", "c"))).predecessors(1)
    assert whole is not None
    assert sorted(whole.values) == pytest.approx(sorted(t.value or 0.0 for t in store.trials.all(study.id)))
    assert Standings(store, study, Judge(found.spec, ("a", "b", "c"))).predecessors(0) is None


def test_behind_a_proxy_they_are_those_of_the_rungs_with_documents(tmp_path: Path) -> None:
    store, _ = old_study(tmp_path, trials=20)
    spec = racing("history", trials=24, name="new", evaluation={"tasks": [{"name": "t"}], "proxy": {"kind": "entropy"}})
    found = new_study(store, spec)
    standings = Standings(store, found.study, Judge(spec, ("a", "b", "c")))
    past = standings.predecessors(1)
    assert past is not None and past.items.shape[1] == search_sets(split(found.study, store))["t"].sizes[1] > 0


def test_what_a_formula_scored_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("db.trials.REHEARSAL", "cpu")  # where the factories' candidates are scored
    store, study = old_study(tmp_path, trials=20)
    assert find_predecessors(store, racing("history"), raced(split(study, store))) == []
