"""Large spaces summed up, the note and the figure: read back as the dashboard reads them."""

import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import optuna
import optuna_dashboard
import pytest
from optuna.storages import RDBStorage
from optuna_dashboard._custom_plot_data import get_plotly_graph_objects

from db.store import Store
from search.explain.record import Ablation, Explanation, Importance
from search.mirror import Mirror, mirror_url
from search.mirror.layout import MOST_SUMMARIES, Layout
from search.mirror.page import note
from search.space import make_space
from search.verdict import Against, Finalist, Kept, Verdict
from tests.search.factories import make_spec
from tests.search.mirrored import Filled, point


def layout_of(layers: int, experts: int, **space: Any) -> Layout:
    paths = [f"e/x{i}" for i in range(experts)]
    return Layout(make_space(make_spec(models={"base": "b", "experts": paths}, space={"layers": layers, **space}), 64))


@pytest.mark.parametrize(
    ("layers", "experts", "space", "names"),
    [
        (8, 4, {"methods": ["task_arithmetic"]}, 32),
        (32, 4, {"methods": ["task_arithmetic"]}, 16),
        (64, 16, {"methods": ["task_arithmetic"]}, 16),
        (64, 17, {"methods": ["task_arithmetic"]}, 1),
        (32, 2, {"methods": ["ties"], "modules": "split"}, 10),
        (16, 3, {"methods": ["task_arithmetic", "ties"], "choose": "per_group"}, 15),
    ],
)
def test_at_most_16_numbers_stand_for_a_large_space(
    layers: int, experts: int, space: dict[str, Any], names: int
) -> None:
    layout = layout_of(layers, experts, **space)
    assert len(layout.columns) == names and layout.summarised == (layout.dimensions > 32)
    assert len({c.name for c in layout.columns}) == names
    assert not layout.summarised or names <= MOST_SUMMARIES


@pytest.mark.parametrize("choose", ["per_study", "per_group"])
def test_a_summary_is_the_mean_over_its_layers(choose: str) -> None:
    space = make_space(make_spec(space={"methods": ["task_arithmetic", "ties"], "choose": choose, "layers": 16}), 16)
    params = point(space, random.Random(5))
    found = {name: value for name, (_, value) in Layout(space).point(params).items()}
    recipe = space.decode(params)
    weights = [group.weights["b"] for group in recipe.groups[4:8]]
    assert found["weight[b]@layers4-7"] == pytest.approx(sum(weights) / 4, rel=1e-4)
    methods = [group.method for group in recipe.groups]
    assert found["method"] == max(("task_arithmetic", "ties"), key=methods.count)
    densities = [float(str(g.parameters["density"])) for g in recipe.groups if g.method == "ties"]
    if densities:
        assert found["density"] == pytest.approx(sum(densities) / len(densities), rel=1e-4)


def test_the_choice_of_one_expert_counts_as_its_weight() -> None:
    space = make_space(make_spec(space={"methods": ["layer_swap"], "layers": "each"}), 64)
    params = {f"layer_swap.source@layer{i}": "b" if i < 8 else "a" for i in range(64)}
    found = {name: value for name, (_, value) in Layout(space).point(params).items()}
    assert found["weight[b]@layers0-15"] == 0.5 and found["weight[a]@layers48-63"] == 1.0
    assert found["weight[c]@layers0-15"] == 0.0


@contextmanager
def page(store: Store) -> Iterator[tuple[str, dict[str, Any], optuna.Study]]:
    """The note, the figures and the study, as the dashboard has them."""
    storage = RDBStorage(mirror_url(store.url))
    try:
        study = optuna.load_study(study_name="test", storage=storage)
        attributes = storage.get_study_system_attrs(study._study_id)
        figures = {name: json.loads(text) for name, text in get_plotly_graph_objects(attributes).items()}
        yield optuna_dashboard.get_note(study), figures, study
    finally:
        storage.remove_session()
        storage.engine.dispose()


def verdict() -> Verdict:
    best = Finalist(
        label="winner", trial=1, recipe_digest="0", search=0.9, holdout=0.8, low=0.7, high=0.9, tasks={},
        winner_minus_this=None,
    )  # fmt: skip
    against = Against(difference=0.2, low=0.1, high=0.3, p_value=0.01)
    expert = best.model_copy(update={"label": "a|`x", "trial": 0, "holdout": 0.6, "winner_minus_this": against})
    return Verdict(
        objective="mean", finalists=(expert, best), winner=1, best_expert=0, documents={"holdout": 12}, trials=2
    )


def test_a_large_study_has_a_figure_of_its_best_trial_and_a_note(any_store: Store) -> None:
    filled = Filled(any_store, make_spec(space={"layers": 16, "modules": "split"}), layers=16)
    warnings: list[str] = []
    mirror = Mirror(mirror_url(any_store.url), filled.study, filled.space, any_store, warnings.append)
    filled.fill(12)
    mirror.sync()
    best = any_store.trials.best(filled.study.id)
    assert best is not None and best.evaluation_id is not None
    recipe = any_store.evaluations.recipe(best.evaluation_id)
    with page(any_store) as (text, figures, study):
        assert "144 parameters, shown here as 12 averages" in text and text.startswith("**running**")
        assert set(figures) == {"layers"} and f"number {best.number}," in figures["layers"]["layout"]["title"]["text"]
        heat = figures["layers"]["data"][0]
        assert heat["y"][-1] == "a · attention" and heat["x"] == [str(i) for i in range(16)]
        first = next(g for g in recipe.groups if g.layers == (3, 4) and g.modules == "attention")
        assert heat["z"][-1][3] == pytest.approx(first.weights["a"], abs=1e-4)
        assert len(study.trials[-1].params) == 12
        assert study.user_attrs == {"strategy": "random", "experts": "a, b, c", "api": "/v1/studies/test"}
    for number in filled.add(1):
        filled.tell(number, 7.0)
    mirror.sync()
    with page(any_store) as (_, figures, _):
        assert f"number {best.number}," in figures["layers"]["layout"]["title"]["text"], "not with every trial"
    mirror.finish()
    with page(any_store) as (_, figures, _):
        assert "number 12, 7.0000" in figures["layers"]["layout"]["title"]["text"]
    mirror.close()
    assert not warnings


def test_the_note_ends_with_the_verdict(store: Store) -> None:
    filled = Filled(store, make_spec())
    done = replace(filled.study, state="finished", verdict=verdict().model_dump(mode="json", by_alias=True))
    text = note(done, Layout(filled.space))
    assert text.startswith("**finished**") and "on 12 documents that the search never saw" in text
    assert text.splitlines()[-2:] == [
        "| `winner` **winner** | 1 | 0.9000 | 0.8000 | +0.1000 | 0.7000 to 0.9000 |",
        "| `a/'x` | 0 | 0.9000 | 0.6000 | +0.3000 | 0.7000 to 0.9000 |",
    ]
    weakened = verdict().model_copy(
        update={
            "optimism": 0.05,
            "candidates": 40,
            "holdout_reads": 2,
            "measured_as": "the mean",
            "constraints": (Kept(constraint="t at least 0.5", search=0.1),),
        }
    )
    done = replace(filled.study, state="finished", verdict=weakened.model_dump(mode="json", by_alias=True))
    assert note(done, Layout(filled.space)).splitlines()[-5:] == [
        "",
        "- picking the best of 40 was expected to flatter the winner by 0.0500",
        "- the holdout was read 2 times",
        "- scores and intervals are of the mean",
        "- t at least 0.5: not met on the search documents",
    ]


def test_a_note_that_became_shorter_leaves_nothing_behind(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    filled = Filled(store, make_spec())
    mirror = Mirror(mirror_url(store.url), filled.study, filled.space, store, pytest.fail)
    for text in ("long " * 2000, "short"):
        monkeypatch.setattr("search.mirror.copy.note", lambda study, layout, text=text: text)
        mirror.finish()
        with page(store) as (found, _, _):
            assert found == text
    mirror.close()


def test_the_note_says_what_the_winner_owes_to_what(store: Store) -> None:
    parts = (
        Ablation(
            change="without",
            expert="a|b",
            recipe_digest="1",
            score=0.5,
            difference=0.4,
            low=0.3,
            high=0.5,
            p_value=0.01,
        ),
        Ablation(change="rounded", recipe_digest="2", why="NaN in <layer>"),
    )
    shares = Importance(trials=60, explained=0.7, experts={"a|b": 0.9}, places={}, parameters={"ties.density": 0.1})
    found = Explanation(trial=1, documents=160, score=0.9, ablations=parts, importance=shares)
    told = verdict().model_copy(update={"explanation": found}).model_dump(mode="json", by_alias=True)
    filled = Filled(store, make_spec())
    text = note(replace(filled.study, state="finished", verdict=told), Layout(filled.space))
    assert text.splitlines()[-9:] == [
        "",
        "The winner with parts changed, on 160 search documents (0.9000):",
        "",
        "| winner | search | costs | 95 % interval |",
        "|---|---|---|---|",
        "| without a/b | 0.5000 | +0.4000 | +0.3000 to +0.5000 |",
        "| rounded to two digits | | | NaN in ‹layer> |",
        "",
        "What the scores of 60 trials depended on: `a/b` 90%, `ties.density` 10%",
    ]
