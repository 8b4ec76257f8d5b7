"""The winner's curse: seen on candidates that are all alike, and corrected."""

import math

import numpy as np
import pytest

from evaluation.result import TaskScore
from evaluation.selection import selection
from evaluation.statistics import Aggregation, Measure, closed_aggregation
from merging.errors import InvalidInput
from tests.evaluation.test_statistics import AGGREGATIONS

MEASURE = Measure("mean", {"a": 1.0, "b": 1.0}, {task: closed_aggregation("mean") for task in "ab"})
TRUE = 0.5
Items = dict[str, np.ndarray]  # [candidates, documents] a task


def draw(rng: np.random.Generator, quality: np.ndarray, documents: int) -> Items:
    """Right and wrong answers; documents are harder or easier for all, which makes candidates' scores go together."""
    hard = {task: rng.normal(0.0, 0.15, documents) for task in "ab"}
    return {
        task: (rng.random((len(quality), documents)) < np.clip(quality[:, None] + hard[task], 0, 1)).astype(float)
        for task in "ab"
    }


def scores(items: Items, candidate: int) -> list[TaskScore]:
    return [score(task, items[task][candidate].tolist()) for task in "ab"]


def score(task: str, items: list[float]) -> TaskScore:
    return TaskScore(
        task=task,
        metric="acc",
        value=sum(items) / len(items),
        stderr=None,
        higher_is_better=True,
        documents=tuple(range(len(items))),
        items=tuple(items),
    )


def replicate(quality: np.ndarray, documents: int, times: int) -> np.ndarray:
    """(search score of the winner, corrected, holdout score, its true quality) of each of so many studies."""
    found = []
    for seed in range(times):
        rng = np.random.default_rng(seed)
        searched, held = draw(rng, quality, documents), draw(rng, quality, documents)
        means = np.mean([searched[task].mean(axis=1) for task in "ab"], axis=0)
        winner = int(np.argmax(means))
        told = selection(MEASURE, [scores(searched, c) for c in range(len(quality))], draws=200, seed=seed)
        assert told.score == pytest.approx(means[winner]) and told.candidates == len(quality)
        holdout = float(np.mean([held[task][winner].mean() for task in "ab"]))
        found.append((told.score, told.corrected, holdout, quality[winner]))
    return np.array(found)


def test_of_200_equal_candidates_the_holdout_is_unbiased_the_search_score_inflated_and_the_correction_near() -> None:
    found = replicate(np.full(200, TRUE), documents=60, times=30)
    naive, corrected, holdout, _ = found.mean(axis=0)
    errors = found.std(axis=0, ddof=1) / math.sqrt(len(found))
    assert abs(holdout - TRUE) < 2.5 * errors[2], "whoever won, other documents know nothing of it"
    assert naive - TRUE > max(0.08, 20 * errors[0]), "the best of 200 is flattered by nine points"
    assert abs(corrected - TRUE) < 0.2 * (naive - TRUE)


def test_candidates_that_differ_are_corrected_by_less_and_still_right() -> None:
    found = replicate(np.concatenate([np.full(30, 0.5), np.full(30, 0.3)]), documents=60, times=20)
    naive, corrected, _, true = found.mean(axis=0)
    assert abs(corrected - true) < 0.35 * (naive - true)
    clear = replicate(np.array([0.8, 0.5, 0.45, 0.4]), documents=60, times=3)
    assert (clear[:, 0] - clear[:, 1]).max() < 0.005, "who is clearly best was not picked by luck"


def test_one_candidate_was_not_picked() -> None:
    told = selection(MEASURE, [[score("a", [1.0, 0.0]), score("b", [1.0, 1.0])]])
    assert (told.score, told.optimism, told.corrected, told.candidates) == (0.75, 0.0, 0.75, 1)


def test_copies_of_one_candidate_cannot_flatter() -> None:
    told = selection(MEASURE, [[score("a", [1.0, 0.0, 0.0]), score("b", [1.0, 1.0, 0.0])]] * 5, seed=3)
    assert told.optimism == 0.0


def test_a_slow_aggregation_and_a_metric_where_less_is_better() -> None:
    rng = np.random.default_rng(0)
    measure = Measure("mean", {"a": 1.0}, {"a": Aggregation("median", AGGREGATIONS["median"].function)})
    losses = [[score("a", rng.random(15).tolist()).model_copy(update={"higher_is_better": False})] for _ in range(40)]
    told = selection(measure, losses)
    assert -1 < told.score < 0 and told.candidates == 40
    assert told.optimism > 0.05 and told.corrected < told.score


def test_a_slow_aggregation_forgets_none_of_many_candidates() -> None:
    rng = np.random.default_rng(2)
    own = Aggregation("a user's own", lambda items: float(np.mean(items)))
    candidates = [[score("a", (rng.random(40) < 0.5).astype(float).tolist())] for _ in range(300)]
    slow, fast = (
        selection(Measure("mean", {"a": 1.0}, {"a": aggregation}), candidates)
        for aggregation in (own, closed_aggregation("mean"))
    )
    assert slow.score == fast.score and slow.candidates == fast.candidates == 300
    assert slow.optimism == pytest.approx(fast.optimism, rel=0.22), "not that of the best of 30"


def test_the_seed_decides_and_other_documents_are_refused() -> None:
    items = draw(np.random.default_rng(1), np.full(6, 0.5), 20)
    candidates = [scores(items, c) for c in range(6)]
    assert selection(MEASURE, candidates, seed=1) == selection(MEASURE, candidates, seed=1)
    assert selection(MEASURE, candidates, seed=1) != selection(MEASURE, candidates, seed=2)
    with pytest.raises(InvalidInput, match="not scored on the same documents"):
        selection(MEASURE, [candidates[0], [score("a", [1.0]), score("b", [1.0])]])
