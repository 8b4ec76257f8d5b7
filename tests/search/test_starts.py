"""What a study begins with: recipes it is given, the best of earlier studies, and that nothing worse is recommended."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from db.records import Lead, Study, Trial
from db.store import Store, open_home
from db.trials import NewTrial
from evaluation.result import Failed, Scored, TaskScore
from evaluation.statistics import Aggregation
from evaluation.wanted import Wanted
from merging.errors import InvalidRecipe
from merging.recipe import GroupMerge, Override, Recipe, Slice
from search.appraisal import reach_verdict
from search.controller import Controller, Search
from search.course import Course, Finished
from search.dispatch import InlineDispatcher
from search.judge import violation
from search.opening import open_search
from search.seeds import derive
from search.space import make_space
from search.starts.earlier import best_of_earlier
from search.starts.given import EARLIER, RECIPE, Given, as_start, named, near, over
from search.starts.pool import starts, warm_starts
from search.starts.start import is_start
from search.study import StudySpec
from search.verdict import Verdict
from tests.search.factories import (
    LAYERS,
    Measured,
    answers,
    bowl,
    create_race,
    fingerprints,
    leading,
    make_spec,
    space_of,
)

WEIGHTS = {"a": 0.4, "b": 0.0, "c": 0.2}


def group(layers: tuple[int, int] = (0, LAYERS), method: str = "task_arithmetic", **fields: Any) -> GroupMerge:
    return GroupMerge.model_validate({"layers": layers, "method": method, "weights": WEIGHTS} | fields)


def recipe_of(experts: Sequence[str], *groups: GroupMerge, **fields: Any) -> Recipe:
    folders = {name: f"experts/{name}" for name in experts}
    return Recipe.model_validate(
        {"schema": "mergesearch/recipe/v1", "base": "base", "experts": folders, "groups": groups} | fields
    )


def test_a_recipe_is_put_over_the_studys_experts_by_what_they_are_called_there() -> None:
    weights = {"x": 0.4, "y": 0.2, "idle": 0.0}
    there = group(method="ties", weights=weights, parameters={"density": {"x": 0.5, "idle": 0.9}})
    change = Override(contains="norm", method="linear", weights={"x": 1.0, "y": 0.0, "idle": 0.0})
    stack = (Slice(layers=(0, 2)), Slice(layers=(2, 4), sources={"x": (1, 3)}))
    recipe = recipe_of(("x", "y", "idle"), there, overrides=[change], slices=stack)
    given = over(recipe, {"x": "a", "y": "c"}, ("a", "b", "c"))
    assert given.groups[0].weights == {"a": 0.4, "b": 0.0, "c": 0.2}
    assert given.groups[0].parameters == {"density": {"a": 0.5}}
    assert given.overrides[0].weights == {"a": 1.0, "b": 0.0, "c": 0.0}
    assert given.slices[1].sources == {"a": (1, 3)}
    assert Given.model_validate(given.to_json()) == given
    start = as_start(space_of(), "recipe:r", given)
    assert start.params is None and start.recipe.slices == given.slices and start.recipe.overrides == given.overrides


@pytest.mark.parametrize(
    ("recipe", "names", "key"),
    [
        (recipe_of(("a", "z"), group(weights={"a": 0.5, "z": 0.1})), {"a": "a"}, "groups[0].weights.z"),
        (recipe_of(("a", "z"), group(method="model_stock", weights={})), {"a": "a"}, "groups[0].method"),
        (recipe_of(("a", "b"), group(method="model_stock", weights={})), {"a": "a", "b": "b"}, "groups[0].method"),
        (
            recipe_of(
                ("a", "z"),
                group(weights={"a": 0.5, "z": 0.0}),
                slices=[Slice(layers=(0, LAYERS), sources={"z": (0, LAYERS)})],
            ),
            {"a": "a"},
            "slices[0].sources.z",
        ),
    ],
)
def test_a_recipe_of_other_experts_is_refused(recipe: Recipe, names: Mapping[str, str], key: str) -> None:
    with pytest.raises(InvalidRecipe) as refused:
        over(recipe, names, ("a", "b", "c"))
    assert refused.value.key == key and refused.value.remedy


def test_a_recipe_outside_the_space_comes_with_the_point_that_has_the_same_at_each_depth() -> None:
    low, high = {"a": 0.0, "b": 0.1, "c": 0.2}, {"a": 9.0, "b": 0.4, "c": 0.3}
    given = Given(groups=(group((0, 1), weights=low), group((1, 3), weights=WEIGHTS), group((3, 4), weights=high)))
    space = space_of(space={"layers": 2, "bounds": {"task_arithmetic.weight": [0.0, 1.2]}})
    outside, beside = as_start(space, "recipe:r", given), near(space, "recipe:r", given)
    assert outside.params is None and beside is not None and beside.origin == "near:recipe:r"
    assert beside.params is not None and space.decode(beside.params) == beside.recipe
    # two ranges of two layers, asked for at a quarter and three quarters of the depth: layers 1 and 3
    assert [g.weights for g in beside.recipe.groups] == [WEIGHTS, high | {"a": 1.2}]
    exact = Given(groups=(group((0, 2), weights=low), group((2, 4), weights=WEIGHTS)))
    assert as_start(space, "recipe:e", exact).params is not None and near(space, "recipe:e", exact) is None
    assert near(space, "recipe:t", Given(groups=(group(method="ties"),))) is None, "the space has not that method"
    stock = space_of(space={"methods": ["model_stock"]})
    assert near(stock, "recipe:t", given) is None, "where nothing is asked for, too"


def test_recipes_of_the_user_are_always_tried_and_those_of_others_as_far_as_there_is_room() -> None:
    space = space_of()
    mine, other = Given(groups=(group(),)), Given(groups=(group(weights={"a": 0.3, "b": 0.2, "c": 0.1}),))
    given = {"recipe:mine": mine, "earlier:s:3": other}
    begun = starts(space, (), given)
    assert [s.origin for s in begun][-1] == "recipe:mine" and "earlier:s:3" not in [s.origin for s in begun]
    assert warm_starts(space, begun, given, None, 0) == begun
    two = warm_starts(space, begun, given, None, 2)
    assert [s.origin for s in two][len(begun) :] == ["base", "earlier:s:3"]


def test_an_origin_fits_its_column() -> None:
    for origin in (named(RECIPE, "r" * 300, 4), named(EARLIER, "s" * 200, 123456)):
        assert len(f"near:{origin}") == 200
    assert named(EARLIER, "s", 7) == "earlier:s:7" and named(RECIPE, "r") == "recipe:r"


def warm(name: str = "test", **sections: Any) -> StudySpec:
    """A study that begins with the pool."""
    begun = {"strategy": "tpe", "trials": 30, "starts": {"most": 8}} | sections.pop("search", {})
    return make_spec(name=name, search=begun, **sections)


def opened(spec: StudySpec, store: Store, given: Mapping[str, Given] | None = None, **setup: Any) -> Search:
    """The study, created with these starts if it is new."""
    study = store.studies.find(spec.name)
    space = make_space(spec, LAYERS)
    if study is None:
        about = {"starts": {origin: one.to_json() for origin, one in (given or {}).items()}, **setup}
        study = create_race(store, spec, about=about)
    return Search(study, spec, 1, space, *open_search(spec, space, study.setup), lambda told: None)


def random_table(seed: int) -> Callable[[Recipe, Wanted], Scored]:
    """Scores without any sense: each recipe has a share of the documents right, drawn for it alone."""

    def evaluate(recipe: Recipe, wanted: Wanted) -> Scored:
        share = 0.4 + 0.2 * derive(seed, recipe.to_json()) / 2**32
        ids = wanted.documents["t"]
        items = tuple(float(derive(seed, recipe.to_json(), i) / 2**32 < share) for i in ids)
        about = {"metric": "acc", "value": fmean(items), "stderr": None, "higher_is_better": True}
        score = TaskScore(task="t", documents=ids, items=items, **about)
        return Scored(scores=(score,), tokens=1, build_seconds=0.1, score_seconds=0.1, device="cpu")

    return evaluate


def finish(found: Search, store: Store, evaluate: Measured) -> Finished:
    dispatcher = InlineDispatcher(store, evaluate)
    return Course(found, leading(store, found.study.id), store, dispatcher.announce).run(dispatcher)


def known(trial: Trial) -> float | None:
    return trial.estimate if trial.value is None else trial.value


@pytest.mark.parametrize("prune", ["paired_test", "halving", "hyperband", "one_shot"])
@pytest.mark.parametrize("seed", range(3))
def test_what_is_recommended_is_never_worse_than_the_best_start(prune: str, seed: int, tmp_path: Path) -> None:
    """Over tables of random scores: of the starts the best by all that is known is scored in full, and is beaten."""
    store = open_home(tmp_path)
    limits = [{"task": "t", "max": 0.55}] if seed % 2 else []
    spec = warm(search={"prune": prune, "seed": seed}, constraints=limits)
    finished = finish(opened(spec, store), store, random_table(seed))
    begun = [t for t in finished.trials if is_start(t.origin, "tpe") and known(t) is not None]
    assert len(begun) == 11, "experts, soup, and seven of the pool"
    best = min(begun, key=lambda t: (violation(t), -(known(t) or 0.0)))
    winner = finished.finalists.winner
    assert best.state == "complete"
    assert (violation(winner), -(winner.value or 0.0)) <= (violation(best), -(best.value or 0.0))
    assert all((violation(winner), -(winner.value or 0.0)) <= (violation(t), -(known(t) or 0.0)) for t in begun)


def test_the_verdict_lists_the_starts_with_the_best_of_those_in_full_first(tmp_path: Path) -> None:
    store = open_home(tmp_path)
    found = opened(warm(search={"prune": "halving"}), store)
    finished = finish(found, store, random_table(2))
    aggregations = {"t": Aggregation("mean", fmean)}
    study = store.studies.by_id(found.study.id)
    verdict = reach_verdict(store, study, finished.finalists, aggregations, finished.trials)
    by_number = {t.number: t for t in finished.trials}
    assert len(verdict.starts) == 11 and verdict.best_start == verdict.starts[0]
    assert {s.trial for s in verdict.starts} == set(range(11)), "none that the strategy proposed"
    for start in verdict.starts:
        trial = by_number[start.trial]
        assert (start.label, start.search, start.full) == (trial.origin, known(trial), trial.state == "complete")
        assert start.documents == (400 if start.full else trial.steps[-1].documents)
    stopped = [s for s in verdict.starts if not s.full]
    assert stopped and verdict.starts[0].full
    assert verdict.starts[0].search == max(s.search for s in verdict.starts)
    assert verdict.of(verdict.winner).search >= verdict.starts[0].search
    assert Verdict.model_validate(verdict.model_dump(mode="json", by_alias=True)) == verdict


def test_a_start_that_cannot_be_scored_in_full_is_not_waited_for(tmp_path: Path) -> None:
    def flattering(recipe: Recipe, wanted: Wanted) -> Scored | Failed:
        """One start is right about everything, and then there is no memory to see that."""
        if recipe.groups[0].weights != dict.fromkeys("abc", 0.2):
            return random_table(0)(recipe, wanted)
        if len(wanted.documents["t"]) == 400:
            return Failed(why="no memory")
        found = random_table(0)(recipe, wanted)
        right = [s.model_copy(update={"items": (1.0,) * len(s.items), "value": 1.0}) for s in found.scores]
        return found.model_copy(update={"scores": tuple(right)})

    store = open_home(tmp_path)
    finished = finish(opened(warm(search={"prune": "one_shot"}), store), store, flattering)
    failing = next(t for t in finished.trials if t.origin == "task_arithmetic:0.2")
    assert failing.state == "pruned" and failing.estimate == max(t.estimate or 0 for t in finished.trials)
    assert finished.finalists.winner.value is not None


def test_more_trials_later_change_no_start(tmp_path: Path) -> None:
    few, many = (make_spec(search={"strategy": "tpe", "trials": trials}) for trials in (18, 60))
    space = make_space(few, LAYERS)
    at_first, _ = open_search(few, space, {"starts": {}})
    kept = {"starts": {}, "most_starts": 2}
    assert len(open_search(many, space, {"starts": {}})[0]) > len(at_first) == 6
    assert open_search(many, space, kept)[0] == open_search(few, space, kept)[0] == at_first


def setup_of(spec: StudySpec, **changes: Any) -> dict[str, Any]:
    return {"fingerprints": fingerprints(spec), "task_digests": {"t": "1"}} | changes


def quality(recipe: Recipe) -> float:
    return max(0.0, 0.9 + 0.8 * bowl(recipe, {"a": 0.7, "b": 0.2, "c": 0.4}))


def with_trials(store: Store, spec: StudySpec, *points: tuple[str, Mapping[str, float], float], **setup: Any) -> Study:
    """A study with complete trials: origin, weights and score of each."""
    study = create_race(store, spec, about=setup)
    space, lead = make_space(spec, LAYERS), leading(store, study.id)
    for number, (origin, weights, value) in enumerate(points):
        recipe = space.recipe((GroupMerge(layers=(0, LAYERS), method="task_arithmetic", weights=dict(weights)),))
        digest = recipe.digest(study.setup["fingerprints"])
        store.trials.add(lead, NewTrial(number, origin, None, recipe, digest))
        store.trials.tell(lead, number, "complete", value)
    return study


def abc(a: float, b: float, c: float) -> dict[str, float]:
    return {"a": a, "b": b, "c": c}


def test_a_study_begins_with_the_best_of_the_studies_before(store: Store) -> None:
    points = [("expert:a", abc(1, 0, 0), 0.9), ("tpe", abc(0.1, 0.2, 0.3), 0.8), ("tpe", abc(0.3, 0.2, 0.1), 0.7)]
    with_trials(store, make_spec(name="old"), *points, ("tpe", abc(0.2, 0.2, 0.2), 0.6), task_digests={"t": "1"})
    with_trials(store, make_spec(name="newer"), ("tpe", abc(0.5, 0.5, 0.1), 0.2), task_digests={"t": "2"})
    spec = make_spec(name="now")
    space, setup = make_space(spec, LAYERS), setup_of(spec)
    found = best_of_earlier(store, space, setup, ())
    assert list(found) == ["earlier:old:1", "earlier:newer:0", "earlier:old:2"], "the same tasks first, two of a study"
    assert found["earlier:old:1"].groups[0].weights == abc(0.1, 0.2, 0.3)
    known_already = {as_start(space, "", found["earlier:old:1"]).recipe.digest(setup["fingerprints"])}
    assert next(iter(best_of_earlier(store, space, setup, known_already))) == "earlier:old:2"
    elsewhere = setup_of(spec, fingerprints=fingerprints(spec) | {"base": "another"})
    assert best_of_earlier(store, space, elsewhere, ()) == {}


def test_the_winner_of_a_finished_study_comes_before_what_scored_higher(store: Store) -> None:
    study = with_trials(store, make_spec(name="old"), ("tpe", abc(1, 1, 0), 0.9), ("tpe", abc(0, 1, 1), 0.8))
    store.studies.finish(leading(store, study.id), {"winner": 1})
    spec = make_spec(name="now")
    found = best_of_earlier(store, make_space(spec, LAYERS), setup_of(spec), ())
    assert list(found) == ["earlier:old:1", "earlier:old:0"]


def test_experts_of_earlier_studies_are_known_by_what_they_hold(store: Store) -> None:
    models = {"base": "base", "experts": [{"path": "p/1", "name": "x"}, {"path": "p/2", "name": "y"}]}
    elder = make_spec(name="old", models=models)
    prints = {"base": "f-base", "expert:x": "f-c", "expert:y": "f-gone"}
    one, two = {"x": 0.7, "y": 0.0}, {"x": 0.2, "y": 0.1}
    with_trials(store, elder, ("tpe", two, 0.9), ("tpe", one, 0.8), fingerprints=prints)
    spec = make_spec(name="now")
    found = best_of_earlier(store, make_space(spec, LAYERS), setup_of(spec), ())
    assert [one.groups[0].weights for one in found.values()] == [abc(0.0, 0.0, 0.7)], "y has no place here"


def test_a_second_study_goes_on_from_the_first_ones_best(tmp_path: Path) -> None:
    store = open_home(tmp_path)
    first = finish(opened(warm("first"), store), store, answers(quality))
    best = first.finalists.winner
    second = warm("second", search={"seed": 9})
    space = make_space(second, LAYERS)
    given = best_of_earlier(store, space, setup_of(second), ())
    assert next(iter(given)) == f"earlier:first:{best.number}" or best.origin != "tpe"
    trials = finish(opened(second, store, given), store, answers(quality)).trials
    tried = next(t for t in trials if t.origin == f"earlier:first:{best.number}")
    assert store.evaluations.recipe(tried.evaluation_id or 0).groups == (
        store.evaluations.recipe(best.evaluation_id or 0).groups
    )
    assert tried.params == best.params, "a point of the space, which the strategy learns of"


def test_a_start_whose_study_was_called_like_the_strategy_is_none_of_its_proposals(store: Store) -> None:
    spec = warm(search={"trials": 14})
    found = opened(spec, store, {"earlier:tpe:7": Given(groups=(group(),))})
    lead: Lead = leading(store, found.study.id)
    dispatcher = InlineDispatcher(store, answers(quality))
    controller = Controller(found, lead, store, dispatcher.announce)
    while not controller.step():
        dispatcher.wait(0)
    again = opened(spec, store)
    heard: list[tuple[int, str]] = []
    reserve = again.strategy.reserve

    class Noting:
        """Hears who proposed what."""

        def __getattr__(self, name: str) -> Any:
            return getattr(again.strategy, name)

        def reserve(self, number: int, proposal: Any) -> None:
            """As the strategy's."""
            heard.append((number, proposal.by))
            reserve(number, proposal)

    strategy: Any = Noting()
    replayed = Search(again.study, spec, 1, again.space, again.starts, strategy, again.on_told)
    Controller(replayed, leading(store, found.study.id), store, lambda ids: None)
    assert len(heard) == 14 and not any(by for _, by in heard)
