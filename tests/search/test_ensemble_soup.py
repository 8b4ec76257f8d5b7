"""Averages proposed by an ensemble of the experts' answers: estimates by hand, and what is learned of their errors."""

from collections.abc import Sequence
from itertools import combinations
from random import Random

import numpy as np
import pytest

from evaluation.result import TaskScore
from evaluation.statistics import Floats, Measure, aggregations_of
from search.seeds import derive
from search.soups.counts import reduced
from search.soups.ensemble import Ensemble
from search.soups.residual import fitted
from search.soups.weightings import weightings
from search.strategies.choose import make_strategy
from search.strategies.contract import Exhausted, Observation, Proposal
from search.strategies.opening import Opening
from tests.search.kitchen import Answers, pantry, rights, serve

FOUR = pantry("abcd")


def task(items: Sequence[float], higher: bool = True, name: str = "t", value: float | None = None) -> TaskScore:
    found = float(np.mean(items)) if value is None else value
    about = {"metric": "acc", "stderr": None, "higher_is_better": higher, "documents": tuple(range(len(items)))}
    return TaskScore(task=name, value=found, items=tuple(items), **about)


def ensemble(*experts: Sequence[TaskScore]) -> Ensemble:
    weights = {score.task: 1.0 for score in experts[0]}
    return Ensemble(Measure("mean", weights, aggregations_of(experts[0])), experts)


def test_votes_are_read_in_three_ways() -> None:
    """a has documents 1 and 2 right, b 2 and 3; of four. With equal weights 2 is right, 1 and 3 are on the edge."""
    found = ensemble([task([1, 1, 0, 0])], [task([0, 1, 1, 0])])
    estimates = found.estimates(np.array([[0.5, 0.5], [0.8, 0.2], [1.0, 0.0]]))
    assert estimates[0] == pytest.approx([0.5, 0.75, 0.5]), "by majority half of 1 and 3; for a quarter's vote both"
    # of .8 and .2: by majority a's; for a quarter's vote document 3 counts (.2 - .25) / .2 + .5 = .25
    assert estimates[1] == pytest.approx([0.5, 0.5625, 0.5])
    assert estimates[2] == pytest.approx([0.5, 0.5, 0.5]), "an expert alone is what it is"


def test_an_error_rate_is_read_the_other_way_round() -> None:
    right = ensemble([task([1, 1, 0, 0])], [task([0, 1, 1, 0])])
    wrong = ensemble([task([0, 0, 1, 1], False)], [task([1, 0, 0, 1], False)])
    weights = np.array([[0.5, 0.5], [0.8, 0.2], [0.3, 0.7]])
    assert wrong.estimates(weights) == pytest.approx(right.estimates(weights) - 1.0)


def test_log_likelihoods_are_averaged_and_other_metrics_mixed() -> None:
    found = ensemble([task([-1.0, -3.0])], [task([-2.0, -1.0])])
    assert found.estimates(np.array([[0.5, 0.5]]))[0] == pytest.approx([-1.75] * 3)
    f1 = ensemble([task([0, 1, 1], value=0.9)], [task([1, 1, 1], value=0.4)])
    assert f1.estimates(np.array([[0.25, 0.75]]))[0] == pytest.approx([0.525] * 3), (
        "of a metric of many documents only its value is known"
    )


def test_a_correction_learns_a_line_and_says_what_it_misses() -> None:
    rng = np.random.default_rng(1)
    features = rng.random((40, 3))
    residuals = 0.3 + 2.0 * features[:, 0] - features[:, 2]
    learned = fitted(features, residuals, features.std(axis=0))
    assert learned(features) == pytest.approx(residuals, abs=0.01) and learned.error < 0.01
    noise = rng.normal(size=40)
    assert fitted(features, noise, features.std(axis=0)).error > 0.8 * noise.std(), "left out, noise is not learned"


def test_the_error_of_a_correction_is_that_of_leaving_each_out() -> None:
    """With the penalty it chose, fitting without each one in turn misses as it says."""
    rng = np.random.default_rng(2)
    features = rng.normal(size=(200, 2))
    residuals: Floats = features @ np.array([1.0, -1.0]) + 0.1 * rng.normal(size=200)
    scale = features.std(axis=0)
    said = fitted(features, residuals, scale).error
    kept = [np.delete(np.arange(200), i) for i in range(0, 200, 5)]
    missed = [
        residuals[i] - fitted(features[rest], residuals[rest], scale)(features[i : i + 1])[0]
        for i, rest in zip(range(0, 200, 5), kept, strict=True)
    ]
    assert float(np.sqrt(np.mean(np.square(missed)))) == pytest.approx(said, rel=0.25)


def test_few_are_no_line_and_none_are_no_correction() -> None:
    features = np.array([[0.0, 1.0], [1.0, 0.0]])
    assert fitted(features, np.array([0.2, 0.4]), np.ones(2))(features) == pytest.approx([0.3, 0.3])
    assert fitted(features[:0], np.empty(0), np.ones(2))(features) == pytest.approx([0.0, 0.0])


def test_weightings_are_of_two_or_more_and_no_two_alike() -> None:
    found = weightings([0, 2, 3], 4, 20, 60, 1)
    assert len({reduced(one) for one in found}) == len(found) == 60
    assert all(one[1] == 0 and sum(map(bool, one)) > 1 for one in found)
    assert found == weightings([0, 2, 3], 4, 20, 60, 1) and found != weightings([0, 2, 3], 4, 20, 60, 2)
    plain = {tuple(int(i in chosen) for i in range(4)) for k in (2, 3) for chosen in combinations([0, 2, 3], k)}
    assert plain <= set(found)
    many = weightings(range(30), 30, 20, 500, 1)
    assert len(many) == 500 and (1,) * 30 in many
    pair = weightings([0, 1], 2, 4, 60, 1)
    assert sorted(pair) == [(1, 1), (1, 3), (3, 1)], "there are no more"


def vote(soup: str) -> Answers:
    """The truth is the majority's: a and b have a half each, c is wrong where both are right, d is no use."""
    right = {"a": "11111111000000000000", "b": "00001111111100000000", "c": "11110000111100000000", "d": "0" * 20}
    return rights("".join(str(int(2 * sum(right[n][i] == "1" for n in soup) > len(soup))) for i in range(20)))


def test_the_best_average_is_among_the_first_that_are_proposed() -> None:
    """a + b + c has twelve documents right by majority, no other average has more than nine."""
    served = serve("ensemble_soup", FOUR, vote, trials=4 + 6)
    best = max(served.told, key=lambda o: o.value or 0.0)
    assert best.value == 0.6 and best.number >= 4
    assert len(served.soups) == len(set(served.soups)) == 6
    assert all("expected of" in label for label in served.labels)


def test_what_was_scored_corrects_what_is_expected() -> None:
    """In truth averages with d are much better than anybody's votes say."""

    def odd(soup: str) -> Answers:
        share = soup.count("d") / len(soup)
        return {"t": [0.2 + 0.6 * share * (len(set(soup)) > 1)] * 20} if len(soup) > 1 else vote(soup)

    served = serve("ensemble_soup", FOUR, odd, trials=4 + 25)
    shares = [soup.count("d") / len(soup) for soup in served.soups]
    assert np.mean(shares[-8:]) > 0.5 > np.mean(shares[:3])


def test_proposals_keep_apart_and_end_when_all_averages_are_tried() -> None:
    served = serve("ensemble_soup", pantry("ab"), vote, parts=4, apart=0.2)
    assert served.ended and set(served.soups) == {"ab", "aaab", "abbb"}
    many = serve("ensemble_soup", FOUR, vote, workers=4, trials=4 + 12, apart=0.3)
    points = [np.array([soup.count(n) / len(soup) for n in "abcd"]) for soup in many.soups]
    assert min(np.abs(one - other).sum() / 2 for one, other in combinations(points, 2)) > 0.3


def test_experts_that_cannot_be_scored_take_no_part() -> None:
    served = serve("ensemble_soup", FOUR, lambda soup: None if "d" in soup else vote(soup), trials=14)
    assert served.soups and not any("d" in soup for soup in served.soups)
    assert serve("ensemble_soup", FOUR, lambda soup: vote(soup) if soup == "a" else None).soups == []


def test_a_replay_proposes_the_same() -> None:
    whole = serve("ensemble_soup", FOUR, vote, trials=24)
    for cut in (4, Random(3).randint(5, 22)):
        again = make_strategy("ensemble_soup", Opening(FOUR, 3, trials=24))
        for one in whole.told[:cut]:
            again.reserve(one.number, Proposal(None, one.recipe))
        for one in whole.told[:cut]:
            again.observe(one)
        following = again.propose(cut)
        assert isinstance(following, Proposal) and following.recipe == whole.told[cut].recipe


def test_it_says_how_far_estimates_can_be_trusted() -> None:
    served = serve("ensemble_soup", FOUR, vote, trials=14)
    lines = served.strategy.explain()  # type: ignore[attr-defined]
    assert len(lines) == 3 and lines[0].startswith("estimated ") and "of 10 that were scored" in lines[1]
    missed, corrected = (float(line.rpartition(" ")[2]) for line in lines[1:])
    assert corrected > 0.0 and missed < 0.5
    assert len(make_strategy("ensemble_soup", Opening(FOUR, 3)).explain()) == 1  # type: ignore[attr-defined]


def test_choosing_reads_the_experts_once_however_many_were_scored() -> None:
    reads: list[int] = []
    found = make_strategy("ensemble_soup", Opening(FOUR, derive("x")))
    for number, name in enumerate("abcd"):
        recipe = FOUR.uniform("linear", {n: float(n == name) for n in "abcd"}, {})

        def read(number: int = number, name: str = name) -> tuple[TaskScore, ...]:
            reads.append(number)
            return (task(list(vote(name)["t"])),)

        found.observe(Observation(number, f"expert:{name}", None, recipe, 0.4, scores=read))
    for number in range(4, 30):
        proposal = found.propose(number)
        assert not isinstance(proposal, Exhausted) and isinstance(proposal, Proposal)
        found.observe(Observation(number, "ensemble_soup", None, proposal.recipe, 0.4))
    assert sorted(reads) == [0, 1, 2, 3]
