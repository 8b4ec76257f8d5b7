"""Scoring again and again: weights that change, a caller that cancels, items that survive JSON."""

import json
import logging
import math
import pickle
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from evaluation.errors import NonFiniteScore
from evaluation.result import Scored, TaskScore
from evaluation.scorer import Scorer, plain
from evaluation.suite import Suite
from evaluation.wanted import Wanted
from tests.evaluation.conftest import BATCH, KEY, TYPICAL, Tiny


class Cancelled(Exception):
    pass


@pytest.fixture(scope="module")
def suite(tiny: Tiny) -> Suite:
    return Suite.load(tiny.spec(*TYPICAL, "tiny_likely", "tiny_f1", "tiny_brier"), tiny.root, KEY)


@pytest.fixture(scope="module")
def scorer(suite: Suite, live: tuple[Any, Any]) -> Scorer:
    return Scorer(suite, *live, "cpu", BATCH)


def test_the_same_weights_score_the_same_bit_for_bit(scorer: Scorer, suite: Suite) -> None:
    first, tokens = scorer.score(suite.wanted("search"))
    holdout, fewer = scorer.score(suite.wanted("holdout"))
    again, drafted = scorer.score(suite.wanted("search"))
    assert again == first and scorer.score(suite.wanted("holdout"))[0] == holdout
    assert tokens > fewer > 0 and tokens >= drafted > 0  # earlier answers save positions and change none


def test_tasks_that_sample_repeat_and_leave_the_random_state_alone(tiny: Tiny, live: tuple[Any, Any]) -> None:
    suite = Suite.load(tiny.spec("tiny_sampled"), tiny.root, KEY)
    sampling = Scorer(suite, *live, "cpu", BATCH)
    torch.manual_seed(1)
    first, _ = sampling.score(suite.wanted("search"))
    torch.manual_seed(2)
    state = torch.get_rng_state()
    assert sampling.score(suite.wanted("search"))[0] == first
    assert torch.equal(torch.get_rng_state(), state)


def test_weights_changed_in_place_change_the_scores_and_back(
    scorer: Scorer, suite: Suite, live: tuple[Any, Any]
) -> None:
    before, _ = scorer.score(suite.wanted("search"))
    weight = live[0].model.layers[0].self_attn.q_proj.weight
    kept = weight.clone()
    weight.zero_()
    assert scorer.score(suite.wanted("search"))[0] != before
    weight.copy_(kept)
    assert scorer.score(suite.wanted("search"))[0] == before


def test_scores_cover_the_part_in_order(scorer: Scorer, suite: Suite) -> None:
    scores, _ = scorer.score(suite.wanted("holdout"))
    assert [s.task for s in scores] == [t.name for t in suite.tasks]
    for score in scores:
        assert score.documents == suite.documents(score.task, "holdout")
        assert len(score.items) == len(score.documents)


def test_items_aggregate_to_the_same_value_after_json(scorer: Scorer, suite: Suite) -> None:
    scores, tokens = scorer.score(suite.wanted("search"))
    outcome = Scored(scores=scores, tokens=tokens, build_seconds=0, score_seconds=0, device="cpu")
    restored = Scored.model_validate_json(outcome.model_dump_json())
    aggregations = suite.aggregations()
    for score, again in zip(scores, restored.scores, strict=True):
        assert aggregations[score.task].function(again.items) == score.value
        assert again == score
    assert json.loads(json.dumps([list(s.items) for s in scores])) == [list(s.items) for s in scores]


def test_what_is_known_is_not_scored_and_counts_the_same(scorer: Scorer, suite: Suite) -> None:
    # tuples, lists and numpy's numbers of fresh items, and what JSON made of those found earlier, must be one thing
    every, _ = scorer.score(suite.wanted("search"))
    known = {s.task: dict(zip(s.documents, json.loads(json.dumps(list(s.items))), strict=True)) for s in every}
    told: list[tuple[int, int]] = []
    again, tokens = scorer.score(replace(suite.wanted("search"), known=known), lambda *a: told.append(a))
    assert again == every and tokens == 0
    total = sum(len(suite.documents(t.name, "search")) for t in suite.tasks)
    assert told == [(total, total)]


def test_a_rung_more_scores_the_rest_alone(scorer: Scorer, suite: Suite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evaluation.meter.PROGRESS_SECONDS", 0.0)
    every, all_tokens = scorer.score(suite.wanted("search"))
    few = {task.name: tuple(sorted(suite.order(task.name, "search")[:20])) for task in suite.tasks}
    first, first_tokens = scorer.score(Wanted("search", few, {}))
    assert [s.documents for s in first] == list(few.values())
    known = {s.task: dict(zip(s.documents, s.items, strict=True)) for s in first}
    told: list[int] = []
    joined, tokens = scorer.score(replace(suite.wanted("search"), known=known), lambda done, _: told.append(done))
    assert 0 < tokens < all_tokens and 0 < first_tokens < all_tokens
    assert told[0] >= 20 * len(suite.tasks) and told == sorted(told)
    for one, other in zip(joined, every, strict=True):
        assert (one.task, one.documents) == (other.task, other.documents)
        assert one.value == pytest.approx(other.value, rel=1e-5)  # other batches, so sums of floats in another order
        assert one.stderr == (None if other.stderr is None else pytest.approx(other.stderr, rel=1e-4))


def test_tasks_that_are_not_wanted_are_left_out(scorer: Scorer, suite: Suite) -> None:
    wanted = Wanted("search", {"tiny_text": (3, 5), "tiny_choice": (1,)}, {"tiny_f1": {1: [0, 1]}})
    scores, _ = scorer.score(wanted)
    assert [(s.task, s.documents) for s in scores] == [("tiny_choice", (1,)), ("tiny_text", (3, 5))]


def test_progress_rises_to_the_total(scorer: Scorer, suite: Suite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evaluation.meter.PROGRESS_SECONDS", 0.0)
    told: list[tuple[int, int]] = []
    scorer.score(suite.wanted("search"), lambda done, total: told.append((done, total)))
    total = sum(len(suite.documents(t.name, "search")) for t in suite.tasks)
    done = [d for d, _ in told]
    assert {t for _, t in told} == {total}
    assert done == sorted(done) and done[0] == 0 and done[-1] == total
    assert len(set(done)) > 20


@pytest.mark.parametrize("after", [0, 5, 20])
def test_a_caller_may_cancel_and_score_again(
    scorer: Scorer, suite: Suite, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, _ = scorer.score(suite.wanted("search"))
    monkeypatch.setattr("evaluation.meter.PROGRESS_SECONDS", 0.0)
    calls = iter(range(10_000))

    def cancel(done: int, total: int) -> None:
        if next(calls) >= after:
            raise Cancelled

    with pytest.raises(Cancelled):
        scorer.score(suite.wanted("search"), cancel)
    assert scorer.score(suite.wanted("search"))[0] == before


def test_scoring_prints_nothing(
    scorer: Scorer, suite: Suite, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        scorer.score(suite.wanted("search"))
    assert capfd.readouterr() == ("", "")
    assert not caplog.records


def test_a_score_out_of_bounds_is_an_error_with_its_name(tiny: Tiny, live: tuple[Any, Any]) -> None:
    suite = Suite.load(tiny.spec("tiny_likely"), tiny.root, KEY)
    head = live[0].lm_head.weight
    kept = head.clone()
    head.mul_(1e6)
    with pytest.raises(NonFiniteScore, match="perplexity of task tiny_likely") as raised:
        Scorer(suite, *live, "cpu", BATCH).score(suite.wanted("search"))
    head.copy_(kept)
    assert str(pickle.loads(pickle.dumps(raised.value))) == str(raised.value)


def test_the_model_must_lie_where_it_is_said_to(suite: Suite, live: tuple[Any, Any]) -> None:
    with pytest.raises(ValueError, match="not on cuda:0"):
        Scorer(suite, *live, "cuda:0", BATCH)


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        (np.float64(0.1), 0.1),
        (np.bool_(True), True),
        ((1, np.int64(2)), [1, 2]),
        ((0, np.array([0.25, 0.75])), [0, [0.25, 0.75]]),
        ([("a", {"b": (np.int64(1),)})], [["a", {"b": [1]}]]),
        (torch.tensor(2.0), 2.0),
        ("text", "text"),
        (None, None),
    ],
)
def test_items_become_plain(item: Any, expected: Any) -> None:
    assert plain(item) == expected
    assert json.loads(json.dumps(plain(item))) == expected


@pytest.mark.parametrize("item", [{1, 2}, b"text", [1, {"a": object()}], np.datetime64("2024-07-26")])
def test_an_item_that_cannot_be_kept_is_refused(item: Any) -> None:
    with pytest.raises(TypeError, match="cannot be kept"):
        plain(item)


def test_a_bootstrapped_error_is_left_out_unless_asked_for(scorer: Scorer, suite: Suite) -> None:
    by_task: dict[str, TaskScore] = {s.task: s for s in scorer.score(suite.wanted("search"))[0]}
    assert by_task["tiny_f1"].stderr is None and by_task["tiny_likely"].stderr is None
    stderr = by_task["tiny_choice"].stderr
    assert stderr is not None and not math.isnan(stderr)
