"""The paired tests against enumeration, the textbook and their error rate; scores on fewer documents."""

import itertools
import math
import time
from typing import Any

import numpy as np
import pytest

from evaluation.result import TaskScore
from evaluation.statistics import (
    Measure,
    aggregations_of,
    bootstrap,
    closed_aggregation,
    compare,
    document_values,
    mcnemar_p,
    p_worse,
    permutation_p,
    restricted,
    shared,
    wilcoxon_p,
)
from merging.errors import InvalidInput
from tests.evaluation.test_statistics import AGGREGATIONS, FUNCTIONS, items_of, measure, score

RNG = np.random.default_rng(11)


def bits(*items: int) -> list[TaskScore]:
    return [score([float(i) for i in items])]


def exact_p_worse(one: list[float], two: list[float]) -> float:
    """Over all swaps of all documents."""
    observed = np.mean(one) - np.mean(two)
    found = [
        np.mean([b if s else a for a, b, s in zip(one, two, swaps, strict=True)])
        - np.mean([a if s else b for a, b, s in zip(one, two, swaps, strict=True)])
        for swaps in itertools.product([False, True], repeat=len(one))
    ]
    return sum(d <= observed + 1e-12 for d in found) / len(found)


def test_p_worse_is_exact_where_few_documents_differ() -> None:
    one, two = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0], [1.0, 1.0, 1.0, 1.0, 0.0, 1.0]  # four lost, one gained
    assert p_worse(measure(), [score(one)], [score(two)]) == exact_p_worse(one, two) == 6 / 32
    assert p_worse(measure(), [score(two)], [score(one)]) == exact_p_worse(two, one) == 31 / 32
    some, others = RNG.random(9).tolist(), RNG.random(9).tolist()
    assert p_worse(measure(), [score(some)], [score(others)]) == pytest.approx(exact_p_worse(some, others), abs=1e-12)


def test_drawn_p_worse_agrees_with_the_exact_one() -> None:
    one, two = (RNG.random(10).tolist() for _ in range(2))
    exact = p_worse(measure(), [score(one)], [score(two)], draws=2**10)
    drawn = p_worse(measure(), [score(one)], [score(two)], draws=2**10 - 1)
    assert exact != drawn and drawn == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / 2**10))


def test_a_candidate_is_not_worse_than_itself_or_where_nothing_is_shared() -> None:
    scores = bits(1, 0, 1, 1)
    assert p_worse(measure(), scores, scores) == 1.0
    elsewhere = [scores[0].model_copy(update={"documents": (9, 10, 11, 12)})]
    assert p_worse(measure(), scores, elsewhere) == 1.0


def test_where_less_is_better_worse_is_more() -> None:
    low, high = [score([1.0] * 8, higher=False)], [score([2.0] * 8, higher=False)]
    assert p_worse(measure(), high, low) == 1 / 2**8 and p_worse(measure(), low, high) == 1.0


def test_p_worse_looks_at_the_documents_both_have_and_the_tasks_that_count() -> None:
    whole = [score([1.0] * 8 + [0.0] * 40, "a"), score(["no", "number"], "b")]
    rung = [score([0.0] * 8, "a"), score(["at"], "b")]
    studied = measure(a=1.0, b=0.0)
    assert p_worse(studied, rung, whole) == 1 / 2**8
    assert p_worse(studied, whole, rung) == 1.0


@pytest.mark.parametrize("kind", ["mean", "worst", "normalized_mean"])
def test_p_worse_of_alike_candidates_is_small_as_often_as_it_says(kind: Any) -> None:
    scales = {"a": (0.2, 0.3), "b": (0.1, 0.4)}
    studied = Measure(kind, {"a": 1.0, "b": 1.0}, {t: closed_aggregation("mean") for t in "ab"}, scales)
    rng, found = np.random.default_rng(3), []
    for seed in range(200):
        ours, theirs = ([score((rng.random(40) < 0.6).astype(float).tolist(), t) for t in "ab"] for _ in range(2))
        found.append(p_worse(studied, ours, theirs, draws=199, seed=seed))
    for alpha in (0.05, 0.2):
        assert np.mean(np.array(found) <= alpha) <= alpha + 2 * math.sqrt(alpha * (1 - alpha) / 200)
    assert np.mean(np.array(found) <= 0.5) > 0.4, "nor is it too careful"


def test_p_worse_takes_milliseconds_and_repeats() -> None:
    one, two = ([score((RNG.random(500) < q).astype(float).tolist(), t) for t in ("a", "b")] for q in (0.50, 0.58))
    studied = measure(a=1.0, b=1.0)
    found = {p_worse(studied, one, two, seed=4) for _ in range(2)}
    assert len(found) == 1 and found.pop() < 0.05
    began = time.process_time()
    for _ in range(10):
        p_worse(studied, one, two)
    assert (time.process_time() - began) / 10 < 0.05


def test_a_slow_aggregation_is_asked_less_often() -> None:
    one, two = [score(items_of("median", 30))], [score(items_of("median", 30))]
    p = p_worse(measure("median"), one, two)
    assert p * 401 == pytest.approx(round(p * 401))


def test_mcnemar_is_the_binomial_of_the_documents_only_one_has_right() -> None:
    one, two = [1, 1, 0, 0, 0, 0, 0, 0], [1, 0, 1, 1, 1, 1, 1, 0]  # one gained, five lost
    expected = 2 * (math.comb(6, 0) + math.comb(6, 1)) / 2**6
    assert mcnemar_p(measure(), bits(*one), bits(*two)) == pytest.approx(expected)
    assert mcnemar_p(measure(), bits(1, 0), bits(1, 0)) == 1.0
    assert mcnemar_p(measure(), [score([0.5, 1.0])], [score([1.0, 1.0])]) is None


def test_mcnemar_is_the_two_sided_permutation_test_of_one_task() -> None:
    one, two = (bits(*(RNG.random(60) < q).astype(int)) for q in (0.4, 0.6))
    exact = mcnemar_p(measure(), one, two)
    assert exact is not None
    assert permutation_p(measure(), one, two, draws=20_000) == pytest.approx(exact, abs=0.01)


def test_wilcoxon_is_the_textbooks() -> None:
    # signed ranks +1 +2 -3 +4 +5 +6: the sum of the negative ones is 3; 5 of 64 sign patterns give 3 or less
    one, two = [0.1, 0.2, 0.0, 0.4, 0.5, 0.6], [0.0, 0.0, 0.3, 0.0, 0.0, 0.0]
    assert wilcoxon_p(measure(), [score(one)], [score(two)]) == pytest.approx(2 * 5 / 64)
    assert wilcoxon_p(measure(), [score(one)], [score(one)]) == 1.0
    assert wilcoxon_p(measure("median"), [score([1.0, 2.0])], [score([2.0, 1.0])]) is None


def test_the_tests_stand_beside_each_other_in_a_comparison() -> None:
    one, two = bits(*[1] * 30 + [0] * 10), bits(*[0] * 20 + [1] * 10 + [0] * 10)
    found = compare(measure(), one, two, draws=500)
    assert found.p < 0.01 and found.mcnemar is not None and found.mcnemar < 0.001
    assert found.wilcoxon is not None and found.wilcoxon < 0.001
    assert compare(measure("perplexity"), one, two, draws=100).wilcoxon is not None


def test_a_perplexitys_documents_are_better_where_the_loss_is_less() -> None:
    values = document_values(measure("perplexity"), score([-1.0, -2.0], higher=False))
    assert values is not None and values == pytest.approx([-math.exp(1), -math.exp(2)])
    assert document_values(measure("median"), score([1.0, 2.0])) is None


@pytest.mark.parametrize("name", FUNCTIONS)
def test_scores_on_fewer_documents_are_those_of_these_documents(name: str) -> None:
    items = items_of(name, 9)
    whole = score(items).model_copy(update={"documents": tuple(range(0, 18, 2)), "stderr": 0.1})
    (found,) = restricted([whole], {"t": [16, 2, 4]}, {"t": AGGREGATIONS[name]})
    assert found.documents == (2, 4, 16) and found.items == (items[1], items[2], items[8])
    assert found.value == pytest.approx(FUNCTIONS[name]([items[1], items[2], items[8]])) and found.stderr is None


def test_all_documents_are_the_score_itself_and_none_leaves_the_task_out() -> None:
    scores = [score([1.0, 0.0], "a"), score([1.0], "b")]
    assert restricted(scores, {"a": [0, 1]}, {}) == (scores[0],)


def test_documents_that_were_not_scored_and_unknown_aggregations_are_refused() -> None:
    with pytest.raises(InvalidInput, match="7 is a document that was not scored"):
        restricted([score([1.0, 0.0])], {"t": [0, 7]}, AGGREGATIONS)
    with pytest.raises(InvalidInput, match="cannot be computed on fewer documents"):
        restricted([score([1.0, 0.0])], {"t": [0]}, {})


def test_what_both_have() -> None:
    one, two = [score([1.0, 0.0, 1.0], "a"), score([1.0], "b")], [score([0.0, 1.0], "a")]
    ours, theirs = shared(one, two, {"a": closed_aggregation("mean")})
    assert [(s.task, s.documents, s.items) for s in ours] == [("a", (0, 1), (1.0, 0.0))] and ours[0].value == 0.5
    assert theirs == tuple(two)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_scores_show_how_they_were_aggregated(name: str) -> None:
    items = items_of(name, 8)
    found = aggregations_of([score(items).model_copy(update={"value": FUNCTIONS[name](items)})])
    if name == "median":
        assert not found, "no function of sums"
    else:
        assert found["t"].name == name
        assert found["t"].function(items[:3]) == pytest.approx(FUNCTIONS[name](items[:3]))


def test_items_of_any_shape_are_asked_without_harm() -> None:
    odd = [["a", "b"], {"x": 1}, None, [1.0], [1.0, 2.0, 3.0], "text"]
    for item in odd:
        assert aggregations_of([score([item, item]).model_copy(update={"value": 1.0})]) == {}


def test_a_scale_turns_intervals_and_leaves_p_as_it_is() -> None:
    one, two = [score(items_of("mean", 40))], [score(items_of("mean", 40))]
    plain = Measure("mean", {"t": 1.0}, AGGREGATIONS | {"t": AGGREGATIONS["mean"]})
    scaled = Measure("normalized_mean", {"t": 1.0}, plain.aggregations, {"t": (0.1, 0.25)})
    before, after = bootstrap(plain, one), bootstrap(scaled, one)
    assert after.value == pytest.approx((before.value - 0.1) / 0.25) and after.stderr == pytest.approx(
        before.stderr * 4
    )
    assert permutation_p(scaled, one, two, draws=500) == permutation_p(plain, one, two, draws=500)
