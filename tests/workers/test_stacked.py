"""A bench scores recipes of other layers as it would score their exports, between others and in any order."""

from pathlib import Path

import pytest

from api.prepared import Fingerprinted, prepare
from db.store import Store
from evaluation.live import load_live
from evaluation.result import Infeasible, Scored
from evaluation.scorer import Scorer
from evaluation.spec import EvaluationSpec
from evaluation.suite import Suite
from merging.export import export
from merging.models import ModelSet
from merging.recipe import GroupMerge, Recipe, Slice
from search.study import load_study
from tests.workers.test_benches import make, whole
from workers.evaluator import evaluate
from workers.model_bench import ModelBenches
from workers.stacked import is_restacked
from zoo.make import Zoo


def opened(recipe: Recipe) -> ModelSet:
    """The recipe's models."""
    return ModelSet.open(Path(recipe.base), {name: Path(place) for name, place in recipe.experts.items()})


def stacked(plain: Recipe, *spans: tuple[int, int], method: str = "task_arithmetic") -> Recipe:
    """A recipe of these runs of layers."""
    depth = sum(last - first for first, last in spans)
    weights = {name: 0.5 / (i + 1) for i, name in enumerate(plain.experts)}
    group = GroupMerge(layers=(0, depth), method=method, weights=weights)
    return plain.model_copy(update={"slices": tuple(Slice(layers=span) for span in spans), "groups": (group,)})


@pytest.fixture
def plain(nano: Zoo, store: Store, tmp_path: Path) -> Recipe:
    """A recipe of the study `s`, which is there."""
    make(nano, store, tmp_path, "s")
    return prepare(load_study(tmp_path / "s.yaml"), Fingerprinted(store.fingerprints)).starts[0].recipe


def test_scores_are_those_of_the_exported_checkpoint_loaded_afresh(plain: Recipe, store: Store, tmp_path: Path) -> None:
    study = store.studies.get("s")
    models, bench, wanted = opened(plain), ModelBenches(store, "cpu").bench(study.id), whole(store, study)
    count = models.layout.layer_count
    recipes = {
        "plain": plain,
        "repeated": stacked(plain, (0, count), (count - 1, count)),
        "again": stacked(plain, (0, 1), (0, count)),  # as deep as the one before
        "left out": stacked(plain, (1, count)),
        "moved": stacked(plain, (1, count), (0, 1)),
        "plain once more": plain,
    }
    fits = [name for name, recipe in recipes.items() if not is_restacked(recipe, models)]
    assert fits == ["plain", "moved", "plain once more"]
    suite = Suite.load(EvaluationSpec.model_validate(study.spec["evaluation"]), Path("/"), study.setup["split_key"])
    for name, recipe in recipes.items():
        found = evaluate(bench, recipe, wanted, lambda *a: None)
        export(recipe, models, tmp_path / name)
        live, tokenizer = load_live(tmp_path / name, "cpu", study.spec["dtype"])
        rows = EvaluationSpec.model_validate(study.spec["evaluation"]).most_rows
        scores, _ = Scorer(suite, live, tokenizer, "cpu", rows).score(wanted)
        assert isinstance(found, Scored) and found.scores == scores, name
        assert live.config.num_hidden_layers == recipe.layer_count


def test_what_cannot_be_scored_so_is_infeasible_and_takes_nothing_down(plain: Recipe, store: Store) -> None:
    study = store.studies.get("s")
    bench, wanted = ModelBenches(store, "cpu").bench(study.id), whole(store, study)
    beyond = evaluate(bench, stacked(plain, (0, 99)), wanted, lambda *a: None)
    assert isinstance(beyond, Infeasible) and "goes beyond the models'" in beyond.why
    looks = stacked(plain, (0, 1)).model_copy(update={"suite": "0" * 32})
    group = looks.groups[0].model_copy(update={"method": "fisher"})
    measured = evaluate(bench, looks.model_copy(update={"groups": (group,)}), wanted, lambda *a: None)
    assert isinstance(measured, Infeasible) and "fisher" in measured.why
    assert isinstance(evaluate(bench, plain, wanted, lambda *a: None), Scored)
