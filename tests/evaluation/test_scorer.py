"""Scoring again and again: weights that change, a caller that cancels, items that survive JSON."""

import json
import logging
import math
import pickle
from typing import Any

import numpy as np
import pytest
import torch

from evaluation.result import Scored, TaskScore
from evaluation.scorer import NonFiniteScore, Scorer, plain
from evaluation.suite import Suite
from tests.evaluation.conftest import BATCH, KEY, TYPICAL, Tiny


class Cancelled(Exception):
    pass


@pytest.fixture(scope="module")
def suite(tiny: Tiny) -> Suite:
    return Suite.load(tiny.spec(*TYPICAL, "tiny_likely", "tiny_f1", "tiny_brier"), tiny.root, KEY)


@pytest.fixture(scope="module")
def scorer(suite: Suite, live: tuple[Any, Any]) -> Scorer:
    return Scorer(suite, *live, "cpu", BATCH)


def test_the_same_weights_score_the_same_bit_for_bit(scorer: Scorer) -> None:
    first, holdout = scorer.score("search"), scorer.score("holdout")
    assert scorer.score("search") == first
    assert scorer.score("holdout") == holdout
    assert first[1] > holdout[1] > 0


def test_tasks_that_sample_repeat_and_leave_the_random_state_alone(tiny: Tiny, live: tuple[Any, Any]) -> None:
    sampling = Scorer(Suite.load(tiny.spec("tiny_sampled"), tiny.root, KEY), *live, "cpu", BATCH)
    torch.manual_seed(1)
    first = sampling.score("search")
    torch.manual_seed(2)
    state = torch.get_rng_state()
    assert sampling.score("search") == first
    assert torch.equal(torch.get_rng_state(), state)


def test_weights_changed_in_place_change_the_scores_and_back(scorer: Scorer, live: tuple[Any, Any]) -> None:
    before = scorer.score("search")
    weight = live[0].model.layers[0].self_attn.q_proj.weight
    kept = weight.clone()
    weight.zero_()
    assert scorer.score("search") != before
    weight.copy_(kept)
    assert scorer.score("search") == before


def test_scores_cover_the_part_in_order(scorer: Scorer, suite: Suite) -> None:
    scores, _ = scorer.score("holdout")
    assert [s.task for s in scores] == [t.name for t in suite.tasks]
    for score in scores:
        assert score.documents == suite.documents(score.task, "holdout")
        assert len(score.items) == len(score.documents)


def test_items_aggregate_to_the_same_value_after_json(scorer: Scorer, suite: Suite) -> None:
    scores, tokens = scorer.score("search")
    outcome = Scored(scores=scores, tokens=tokens, build_seconds=0, score_seconds=0, device="cpu")
    restored = Scored.model_validate_json(outcome.model_dump_json())
    aggregations = suite.aggregations()
    for score, again in zip(scores, restored.scores, strict=True):
        assert aggregations[score.task].function(again.items) == score.value
        assert again == score
    assert json.loads(json.dumps([list(s.items) for s in scores])) == [list(s.items) for s in scores]


def test_progress_rises_to_the_total(scorer: Scorer, suite: Suite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evaluation.scorer._PROGRESS_SECONDS", 0.0)
    told: list[tuple[int, int]] = []
    scorer.score("search", lambda done, total: told.append((done, total)))
    total = sum(len(suite.documents(t.name, "search")) for t in suite.tasks)
    done = [d for d, _ in told]
    assert {t for _, t in told} == {total}
    assert done == sorted(done) and done[0] == 0 and done[-1] == total
    assert len(set(done)) > 20


@pytest.mark.parametrize("after", [0, 5, 40, 80])
def test_a_caller_may_cancel_and_score_again(scorer: Scorer, after: int, monkeypatch: pytest.MonkeyPatch) -> None:
    before = scorer.score("search")
    monkeypatch.setattr("evaluation.scorer._PROGRESS_SECONDS", 0.0)
    calls = iter(range(10_000))

    def cancel(done: int, total: int) -> None:
        if next(calls) >= after:
            raise Cancelled

    with pytest.raises(Cancelled):
        scorer.score("search", cancel)
    assert scorer.score("search") == before


def test_scoring_prints_nothing(
    scorer: Scorer, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        scorer.score("search")
    assert capfd.readouterr() == ("", "")
    assert not caplog.records


def test_a_score_out_of_bounds_is_an_error_with_its_name(tiny: Tiny, live: tuple[Any, Any]) -> None:
    suite = Suite.load(tiny.spec("tiny_likely"), tiny.root, KEY)
    head = live[0].lm_head.weight
    kept = head.clone()
    head.mul_(1e6)
    with pytest.raises(NonFiniteScore, match="perplexity of task tiny_likely") as raised:
        Scorer(suite, *live, "cpu", BATCH).score("search")
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


def test_a_bootstrapped_error_is_left_out_unless_asked_for(scorer: Scorer) -> None:
    by_task: dict[str, TaskScore] = {s.task: s for s in scorer.score("search")[0]}
    assert by_task["tiny_f1"].stderr is None and by_task["tiny_likely"].stderr is None
    stderr = by_task["tiny_choice"].stderr
    assert stderr is not None and not math.isnan(stderr)
