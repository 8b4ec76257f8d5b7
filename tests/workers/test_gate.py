"""The gate before scoring: it stops what is broken as a language model, with the figures, and nothing else."""

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from db.records import Study
from db.store import Store
from evaluation.gates.look import Look
from evaluation.gates.verdict import broken
from evaluation.result import Infeasible, Scored
from evaluation.wanted import Wanted
from merging.recipe import GroupMerge, Recipe
from search.opening import open_search
from search.space import space_of
from search.study import StudySpec
from tests.workers.test_benches import make, whole
from workers.evaluator import evaluate
from workers.gate import is_plain, parents_of
from workers.model_bench import ModelBench, ModelBenches
from zoo.make import Zoo


@pytest.fixture
def bench(nano: Zoo, store: Store, tmp_path: Path) -> ModelBench:
    """A bench of a study with a gate."""
    return ModelBenches(store, "cpu").bench(gated(nano, store, tmp_path).id)


def gated(nano: Zoo, store: Store, folder: Path) -> Study:
    study = make(nano, store, folder, "gated")
    spec = StudySpec.model_validate(study.spec)
    spec = spec.model_copy(update={"search": spec.search.model_copy(update={"gates": True})})
    assert spec.frozen_digest() != study.frozen_digest, "it decides what trials end as"
    store.studies.reopen(study.id, spec.to_json())
    return store.studies.by_id(study.id)


def recipe_of(store: Store, weight: float) -> Recipe:
    """Task arithmetic with one weight for every expert of the only study."""
    (study,) = store.studies.all()
    space = space_of(study)
    names = tuple(space.experts)
    merge = {"method": "task_arithmetic", "weights": dict.fromkeys(names, weight)}
    (first, *_), _ = open_search(StudySpec.model_validate(study.spec), space, study.setup)
    group = GroupMerge(layers=(0, study.setup["layer_count"]), **merge)
    return first.recipe.model_copy(update={"groups": (group,)})


def test_noise_is_stopped_with_its_figures_and_what_was_scored_before_is_not_looked_at(
    bench: ModelBench, store: Store
) -> None:
    (study,) = store.studies.all()
    wanted, noise = whole(store, study), recipe_of(store, 300.0)
    outcome = evaluate(bench, noise, wanted, lambda *a: None)
    assert isinstance(outcome, Infeasible)
    assert "its perplexity on the search texts is" in outcome.why and "more than 1.5 times" in outcome.why
    task, documents = next(iter(wanted.documents.items()))
    known = Wanted("search", wanted.documents, {task: {documents[0]: 0.0}})
    bench.build(noise, lambda *a: None)
    assert bench.score(known, lambda *a: None)[0], "a later rung of what was let through"
    good = evaluate(bench, recipe_of(store, 0.3), wanted, lambda *a: None)
    assert isinstance(good, Scored)
    held = whole(store, study, "holdout")
    assert isinstance(evaluate(bench, noise, held, lambda *a: None), Scored), "the verdict leaves nobody out"


def test_no_expert_and_no_start_is_stopped(bench: ModelBench, store: Store) -> None:
    (study,) = store.studies.all()
    starts, _ = open_search(StudySpec.model_validate(study.spec), space_of(study), study.setup)
    plain = [start for start in starts if start.origin.startswith("expert:") or start.origin == "uniform_soup"]
    assert len(plain) >= 3 and all(is_plain(start.recipe) for start in plain)
    assert not is_plain(recipe_of(store, 0.7)) and is_plain(recipe_of(store, 0.0))
    parents, looks = parents_of(starts[0].recipe, study.setup["layer_count"]), []
    assert len(parents) == 1 + len(starts[0].recipe.experts) and all(map(is_plain, parents))
    scorer = bench._resident.scorer(study, bench._suite)
    for recipe in (*parents, *(start.recipe for start in starts)):
        bench.build(recipe, lambda *a: None)
        looks.append(scorer.look(lambda: None))
    assert all(math.isfinite(look.perplexity) and look.answers == 8 for look in looks)
    assert [broken(look, looks[: len(parents)]) for look in looks] == [None] * len(looks)


def test_one_phrase_over_and_over_is_stopped(bench: ModelBench, store: Store) -> None:
    (study,) = store.studies.all()
    bench.build(recipe_of(store, 0.3), lambda *a: None)
    scorer, live = bench._resident.scorer(study, bench._suite), bench._resident.live
    parents = bench._gate._parents if bench._gate else ()
    said = live.get_output_embeddings().register_forward_hook(_always(9))
    look = scorer.look(lambda: None)
    said.remove()
    assert look.ended == 0 and look.distinct is not None and look.distinct < 0.1
    assert broken(look, parents) is not None and broken(scorer.look(lambda: None), parents) is None


def _always(token: int) -> Callable[[Any, Any, torch.Tensor], torch.Tensor]:
    """A hook that makes one token the likeliest everywhere, by a little."""

    def louder(module: Any, given: Any, logits: torch.Tensor) -> torch.Tensor:
        raised = logits.clone()
        raised[..., token] = logits.amax(-1) + 0.01
        return raised

    return louder


def seen(perplexity: float = 10.0, distinct: float | None = 0.8, ended: int = 6) -> Look:
    return Look(perplexity, distinct, ended, 8)


@pytest.mark.parametrize(
    ("look", "parents", "why"),
    [
        (seen(15.0), [seen(8.0), seen(10.0)], None),
        (seen(15.1), [seen(8.0), seen(10.0)], r"perplexity on the search texts is 15\.1, .* experts \(10\)"),
        (seen(math.inf), [seen()], "perplexity on the search texts is inf"),
        (seen(math.inf), [seen(), seen(math.inf)], None),
        (seen(distinct=0.3), [seen(), seen(distinct=None)], "repeat themselves: 30% of their pairs"),
        (seen(distinct=0.3), [seen(), seen(distinct=0.2)], None),
        (seen(distinct=None), [seen()], None),
        (seen(ended=0), [seen(), seen(ended=1)], "none of its 8 answers came to an end"),
        (seen(ended=0), [seen(), seen(ended=0)], None),
        (Look(10.0, None, 0, 0), [Look(9.0, None, 0, 0)], None),
    ],
)
def test_only_what_no_parent_does_is_broken(look: Look, parents: list[Look], why: str | None) -> None:
    found = broken(look, parents)
    assert found is None if why is None else found is not None and re.search(why, found)
