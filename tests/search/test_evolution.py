"""Evolution as a strategy: it finds, it begins again where it was, and everything it knows was told."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from db.records import DocumentSet, Trial
from db.store import Store, open_home
from evaluation.result import Part, TaskScore
from merging.errors import InvalidStudy
from merging.recipe import Recipe
from search.controller import Controller, Search, Told
from search.dispatch import InlineDispatcher
from search.opening import open_search
from search.racing.rungs import plan_rungs, plan_sizes
from search.seeds import derive
from search.space import make_space
from search.starts.pool import starts
from search.strategies.choose import make_strategy
from search.strategies.contract import Observation, Proposal
from search.strategies.declared import EVOLUTIONS
from search.strategies.evolution import Evolution
from search.strategies.opening import Opening
from search.study import StudySpec
from tests.search.factories import LAYERS, answers, bowl, fingerprints, leading, make_spec

BEST = {"a": 0.7, "b": 0.2, "c": 0.4}
SCHEMES = pytest.mark.parametrize("scheme", EVOLUTIONS)


class Killed(Exception):
    """The test's own interruption."""


def quality(recipe: Recipe) -> float:
    """Between 0 and 0.9, the nearer to the best weights the more."""
    return max(0.0, 0.9 + 0.8 * bowl(recipe, BEST))


def study_of(scheme: str, **search: object) -> StudySpec:
    """A study of two tasks that races."""
    asked = {"strategy": "evolution", "trials": 24, "prune": "halving", "options": {"scheme": scheme, "population": 6}}
    tasks = [{"name": "t"}, {"name": "u", "weight": 2.0}]
    return make_spec(search=asked | search, space={"layers": 2}, evaluation={"tasks": tasks})


def opened(spec: StudySpec, store: Store, on_told: Callable[[Told], None] = lambda told: None) -> Search:
    """The study, with 120 and 80 search documents in rungs."""
    counts, names = {"t": 120, "u": 80}, ("t", "u")
    rungs = plan_rungs(spec.racing, 200, 1)
    sizes = plan_sizes(counts, names, rungs)
    parts: dict[tuple[str, Part], DocumentSet] = {}
    for task, count in counts.items():
        order = tuple(sorted(range(count), key=lambda i: derive("order", i)))
        parts[task, "search"] = DocumentSet(order, sizes[task], task)
        parts[task, "holdout"] = DocumentSet.whole(range(count, count + 20), task)
    setup = {"fingerprints": fingerprints(spec), "layer_count": LAYERS, "rungs": list(rungs)}
    setup["aggregations"] = {"t": "mean", "u": "mean"}
    study = store.studies.find(spec.name) or store.studies.create(
        spec.name, spec.to_json(), spec.frozen_digest(), setup, parts
    )
    space = make_space(spec, LAYERS)
    return Search(study, spec, spec.search.parallel, space, *open_search(spec, space), on_told)


def run(found: Search, store: Store) -> list[tuple[object, ...]]:
    """Take the search to its end; all that is known of its trials but the times."""
    dispatcher = InlineDispatcher(store, answers(quality))
    controller = Controller(found, leading(store, found.study.id), store, dispatcher.announce)
    while not controller.step():
        dispatcher.wait(0)
    return [told(trial) for trial in store.trials.all(found.study.id)]


def told(t: Trial) -> tuple[object, ...]:
    return t.number, t.origin, t.params, t.state, t.value, t.steps, t.estimate, t.rung, t.told_order


@SCHEMES
def test_a_killed_search_goes_on_as_an_undisturbed_one(scheme: str, tmp_path: Path) -> None:
    spec = study_of(scheme)
    store = open_home(tmp_path / "one")
    undisturbed = run(opened(spec, store), store)
    assert {row[3] for row in undisturbed} >= {"complete", "pruned"}
    store = open_home(tmp_path / "two")
    for stop_at in (4, 15):

        def stop(told: Told, stop_at: int = stop_at) -> None:
            if told.trial.number + 1 == stop_at:
                raise Killed

        with pytest.raises(Killed):
            run(opened(spec, store, stop), store)
    assert run(opened(spec, store), store) == undisturbed


@SCHEMES
def test_what_is_replayed_holds_and_proposes_what_the_living_does(scheme: str) -> None:
    living, observations = lived(scheme, 40)
    again = strategy(scheme)
    for each in observations:
        again.reserve(each.number, Proposal(each.params, each.recipe))
    for each in observations:
        again.observe(each)
    assert [m.number for m in again.archive.members] == [m.number for m in living.archive.members]
    assert [again.propose(n) for n in (40, 41)] == [living.propose(n) for n in (40, 41)]


@SCHEMES
def test_it_finds_better_than_it_began_with_and_than_uniform_draws(scheme: str) -> None:
    living, observations = lived(scheme, 90)
    begun = max(o.value or 0.0 for o in observations if o.origin != "evolution")
    found = max(o.value or 0.0 for o in observations)
    space = make_space(spec_of(scheme), LAYERS)
    uniform = make_strategy("random", Opening(space, 5))
    drawn = []
    for number in range(90):
        proposal = uniform.propose(number)
        assert isinstance(proposal, Proposal) and proposal.recipe is not None
        drawn.append(value_of(proposal.recipe))
    assert found > begun and found > max(drawn)
    assert found in [m.value for m in living.archive.members]


def test_nobody_is_tried_twice_not_even_of_few(tmp_path: Path) -> None:
    """Nine points, two of them known: the others come first, then one of the nine again."""
    space = make_space(make_spec(space={"methods": ["layer_swap"], "layers": 2}), LAYERS)
    begin = [s for s in starts(space) if s.params is not None]
    evolution = make_strategy("evolution", Opening(space, 5, begin))
    seen = []
    for number, start in enumerate(begin):
        evolution.reserve(number, Proposal(start.params, start.recipe))
        seen.append(start.params)
        evolution.observe(Observation(number, start.origin, start.params, start.recipe, 0.1 * number))
    for number in range(len(begin), 10):
        proposal = evolution.propose(number)
        assert isinstance(proposal, Proposal) and proposal.recipe is not None
        seen.append(proposal.params)
        evolution.observe(Observation(number, "evolution", proposal.params, proposal.recipe, 0.5))
    assert len({tuple(sorted((p or {}).items())) for p in seen}) == 9


def test_before_anything_is_told_it_varies_the_starts_and_never_waits() -> None:
    space = make_space(spec_of("niches"), LAYERS)
    begin = starts(space)
    evolution = make_strategy("evolution", Opening(space, 5, begin, options={"mutation": 0.01}))
    known = [np.array(list(s.params.values())) for s in begin if s.params is not None]
    for number in range(len(begin), len(begin) + 8):
        proposal = evolution.propose(number)
        assert isinstance(proposal, Proposal) and proposal.params is not None
        assert min(np.abs(np.array(list(proposal.params.values())) - k).max() for k in known) < 0.1
    assert isinstance(make_strategy("evolution", Opening(space, 5)).propose(0), Proposal), "nor without any"


def test_starts_outside_the_space_are_no_parents() -> None:
    evolution = strategy("niches")
    recipe = make_space(spec_of("niches"), LAYERS).uniform("linear", {"a": 1.0, "b": 0.0, "c": 0.0}, {})
    evolution.observe(Observation(0, "expert:a", None, recipe, 0.9))
    assert not evolution.archive.members


def test_a_trial_of_which_only_the_proxy_is_known_is_no_parent() -> None:
    evolution, found = strategy("niches"), starts(make_space(spec_of("niches"), LAYERS))[0]
    evolution.observe(Observation(0, "expert:a", found.params, found.recipe, 0.9, pruned=True, scores=lambda: ()))
    assert not evolution.archive.members


def test_a_space_with_nothing_to_vary_is_refused() -> None:
    space = make_space(make_spec(space={"methods": ["model_stock"]}), LAYERS)
    with pytest.raises(InvalidStudy, match="nothing to vary"):
        make_strategy("evolution", Opening(space, 5))


@pytest.mark.parametrize(
    ("options", "said"), [({"scheme": "islands"}, "scheme.*niches"), ({"population": 1}, "population.*range")]
)
def test_options_are_checked_where_the_study_is_read(options: dict[str, object], said: str) -> None:
    with pytest.raises(InvalidStudy, match=said):
        make_spec(search={"strategy": "evolution", "options": options})


def spec_of(scheme: str) -> StudySpec:
    return make_spec(search={"strategy": "evolution", "options": {"scheme": scheme}}, space={"layers": "each"})


def strategy(scheme: str) -> Evolution:
    spec = spec_of(scheme)
    space = make_space(spec, LAYERS)
    found = make_strategy("evolution", Opening(space, 5, starts(space), options=spec.search.options))
    assert isinstance(found, Evolution)
    return found


def scores_of(recipe: Recipe) -> tuple[TaskScore, ...]:
    """Of two tasks, each wanting other weights; which documents are right follows how hard they are."""
    found = []
    for task, wanted in (("t", BEST), ("u", {"a": 0.2, "b": 0.8, "c": 0.4})):
        share = 0.9 + 0.8 * bowl(recipe, wanted)
        items = tuple(float(derive("hard", task, i) / 2**32 < share) for i in range(150))
        about = {"metric": "acc", "value": float(np.mean(items)), "stderr": None, "higher_is_better": True}
        found.append(TaskScore.model_validate({"task": task, "documents": tuple(range(150)), "items": items} | about))
    return tuple(found)


def value_of(recipe: Recipe) -> float:
    return float(np.mean([s.value for s in scores_of(recipe)]))


def lived(scheme: str, count: int) -> tuple[Evolution, list[Observation]]:
    """A strategy that was told of so many trials, and these."""
    space = make_space(spec_of(scheme), LAYERS)
    found, observations = strategy(scheme), []
    for number in range(count):
        begun = starts(space)[number : number + 1]
        if begun:
            proposal = Proposal(begun[0].params, begun[0].recipe)
            found.reserve(number, proposal)
        else:
            asked = found.propose(number)
            assert isinstance(asked, Proposal)
            proposal = asked
        recipe = proposal.recipe
        assert recipe is not None
        origin = begun[0].origin if begun else "evolution"
        seen = Observation(number, origin, proposal.params, recipe, value_of(recipe), scores=partial(scores_of, recipe))
        found.observe(seen)
        observations.append(seen)
    return found, observations
