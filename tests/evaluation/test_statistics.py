"""Intervals and tests against closed forms, enumeration and the aggregations' own code."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.resampling import Resampler, resampler
from evaluation.result import TaskScore
from evaluation.statistics import (
    Aggregation,
    Interval,
    Measure,
    bootstrap,
    compare,
    paired_interval,
    permutation_p,
    resamples,
)
from evaluation.statistics.intervals import _kept
from merging.errors import InvalidInput


def mean(items: Sequence[Any]) -> float:
    return sum(items) / len(items)


def weighted_mean(items: Sequence[Any]) -> float:
    return float(sum(a for a, _ in items) / sum(b for _, b in items))


FUNCTIONS = {
    "mean": mean,
    "perplexity": lambda items: math.exp(-mean(items)),
    "weighted_perplexity": lambda items: math.exp(-weighted_mean(items)),
    "bits_per_byte": lambda items: -weighted_mean(items) / math.log(2),
    "median": lambda items: sorted(items)[len(items) // 2],
}
AGGREGATIONS = {name: Aggregation(name, function) for name, function in FUNCTIONS.items()}
RNG = np.random.default_rng(0)


def score(items: Sequence[Any], task: str = "t", higher: bool = True) -> TaskScore:
    return TaskScore(
        task=task,
        metric="m",
        value=0.0,
        stderr=None,
        higher_is_better=higher,
        documents=tuple(range(len(items))),
        items=tuple(items),
    )


def measure(aggregation: str = "mean", kind: Any = "mean", **weights: float) -> Measure:
    weights = weights or {"t": 1.0}
    return Measure(kind, weights, {task: AGGREGATIONS[aggregation] for task in weights})


def items_of(name: str, n: int) -> list[Any]:
    if name in ("weighted_perplexity", "bits_per_byte"):
        return [[-float(a), int(b)] for a, b in zip(RNG.random(n) * 5, RNG.integers(1, 9, n), strict=True)]
    return [float(x) for x in -RNG.random(n)]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_resampler_agrees_with_the_aggregation_itself(name: str) -> None:
    one, two = items_of(name, 7), items_of(name, 7)
    mine, other = (resampler(name, FUNCTIONS[name], items) for items in (one, two))
    counts = RNG.multinomial(7, np.full(7, 1 / 7), size=20)
    expected = [FUNCTIONS[name]([one[i] for i in np.repeat(np.arange(7), row)]) for row in counts]
    assert mine.resampled(counts) == pytest.approx(expected, rel=1e-12)
    mask = RNG.random((20, 7)) < 0.5
    swapped = mine.swapped(other, mask)
    for row, first, second in zip(mask, *swapped, strict=True):
        assert first == pytest.approx(FUNCTIONS[name]([b if s else a for a, b, s in zip(one, two, row, strict=True)]))
        assert second == pytest.approx(FUNCTIONS[name]([a if s else b for a, b, s in zip(one, two, row, strict=True)]))
    assert mine.fast == (name != "median")


def test_lm_evals_own_aggregations_are_the_ones_assumed() -> None:
    from lm_eval.api.registry import get_aggregation

    for name, function in FUNCTIONS.items():
        items = items_of(name, 9)
        assert get_aggregation(name)(items) == pytest.approx(function(items), rel=1e-12)


def test_bootstrap_error_of_a_mean_is_the_analytic_one() -> None:
    items = [float(x) for x in RNG.random(200) < 0.4]
    found = bootstrap(measure(), [score(items)], draws=20_000)
    analytic = float(np.std(items)) / math.sqrt(200)
    assert found.value == pytest.approx(mean(items))
    assert found.stderr == pytest.approx(analytic, rel=0.03)
    assert found.low == pytest.approx(found.value - 1.96 * analytic, abs=0.2 * analytic)
    assert found.high == pytest.approx(found.value + 1.96 * analytic, abs=0.2 * analytic)


def test_strata_add_up() -> None:
    one, two = [float(x) for x in RNG.random(80)], [float(x) for x in RNG.random(300)]
    found = bootstrap(measure(a=1.0, b=3.0), [score(one, "a"), score(two, "b")], draws=20_000)
    analytic = math.sqrt((0.25 * np.std(one)) ** 2 / 80 + (0.75 * np.std(two)) ** 2 / 300)
    assert found.stderr == pytest.approx(analytic, rel=0.03)
    assert found.value == pytest.approx(0.25 * mean(one) + 0.75 * mean(two))


def test_an_unweighted_task_and_a_lower_better_one() -> None:
    scores = [score([1.0, 2.0, 4.0], "a", higher=False), score([math.nan] * 3, "b")]
    assert bootstrap(measure(a=1.0, b=0.0), scores).value == pytest.approx(-7 / 3)


@pytest.mark.parametrize("name", ["mean", "bits_per_byte", "median"])
def test_permutation_p_is_that_of_all_permutations(name: str) -> None:
    one, two = items_of(name, 8), items_of(name, 8)
    function = FUNCTIONS[name]
    observed = abs(function(one) - function(two))
    far = 0
    for swaps in itertools.product([False, True], repeat=8):
        first = [b if s else a for a, b, s in zip(one, two, swaps, strict=True)]
        second = [a if s else b for a, b, s in zip(one, two, swaps, strict=True)]
        far += abs(function(first) - function(second)) >= observed - 1e-12
    exact = far / 2**8
    p = permutation_p(measure(name), [score(one)], [score(two)], draws=40_000)
    draws = 1_000 if name == "median" else 40_000
    assert p == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / draws) + 2 / draws)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_system_does_not_differ_from_itself(name: str) -> None:
    scores = [score(items_of(name, 12))]
    found = compare(measure(name), scores, scores, draws=300)
    assert found.p == 1.0
    assert (found.interval.value, found.interval.low, found.interval.high) == (0.0, 0.0, 0.0)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=2, max_size=30), st.sampled_from(["mean", "worst"]))
def test_exchanging_the_candidates_turns_the_sign_and_keeps_p(pairs: list[tuple[bool, bool]], kind: str) -> None:
    one, two = ([score([pair[i] for pair in pairs], task) for task in ("a", "b")] for i in (0, 1))
    studied = measure(kind=kind, a=1.0, b=2.0)
    forth, back = compare(studied, one, two, draws=200), compare(studied, two, one, draws=200)
    assert forth.p == back.p
    assert forth.interval.value == -back.interval.value
    assert forth.interval.low == pytest.approx(-back.interval.high)


def test_pairing_narrows_the_interval() -> None:
    hard = RNG.random(300)
    one = [float(x < 0.60) for x in hard]
    two = [float(x < 0.55) for x in hard]
    paired = paired_interval(measure(), [score(one)], [score(two)])
    apart = bootstrap(measure(), [score(one)])
    assert paired.stderr < apart.stderr
    assert paired.low > 0


def test_seeds_repeat_and_differ() -> None:
    one, two = [score(items_of("mean", 20))], [score(items_of("mean", 20))]
    assert compare(measure(), one, two, seed=3) == compare(measure(), one, two, seed=3)
    assert compare(measure(), one, two, seed=3) != compare(measure(), one, two, seed=4)


def test_blocks_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = ([score(items_of("mean", n), task) for task, n in (("a", 20), ("b", 9))] for _ in range(2))
    whole = compare(measure(a=1.0, b=1.0), one, two, draws=500)
    monkeypatch.setattr("evaluation.statistics.measure.BLOCK", 130)
    monkeypatch.setattr("evaluation.statistics.intervals.REMEMBERED", 0)  # else what was drawn would be there still
    assert compare(measure(a=1.0, b=1.0), one, two, draws=500) == whole


@pytest.mark.parametrize("name", ["mean", "median"])
def test_what_was_drawn_for_other_documents_or_another_seed_is_not_taken(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = [(sizes, draws, seed) for draws in (200, 300) for seed in (0, 1) for sizes in ((20, 9), (9, 20), (29,))]

    def intervals() -> list[Interval]:
        found = []
        for sizes, draws, seed in asked:
            tasks = dict(zip("ab", sizes, strict=False))
            of = measure(name, **dict.fromkeys(tasks, 1.0))
            ours, theirs = ([score([float(i % k) for i in range(n)], t) for t, n in tasks.items()] for k in (2, 3))
            found.append(paired_interval(of, ours, theirs, draws, seed))
            assert found[-1] == paired_interval(of, ours, theirs, draws, seed)
        return found

    before, kept, after = _kept.cache_info(), intervals(), _kept.cache_info()
    assert after.hits - before.hits >= len(asked), "nothing was kept"
    monkeypatch.setattr("evaluation.statistics.intervals.REMEMBERED", 0)
    assert kept == intervals()
    assert len(set(kept)) == len(asked)


def test_what_is_kept_cannot_be_written_to() -> None:
    for block in resamples([score(items_of("mean", 20))], 100, 0):
        with pytest.raises(ValueError, match="read-only"):
            block[0][0, 0] = 7


def test_other_documents_are_refused() -> None:
    with pytest.raises(InvalidInput, match="was not scored on the same documents"):
        compare(measure(), [score([0.0, 1.0])], [score([0.0, 1.0, 1.0])])
    with pytest.raises(InvalidInput, match="was not scored on the same documents"):
        compare(measure(), [score([0.0])], [score([0.0]), score([0.0], "other")])


def test_the_base_class_cannot_be_made() -> None:
    with pytest.raises(TypeError):
        Resampler()  # type: ignore[abstract]
