"""The racing policies, one by one, on numbers worked by hand; and the paired test's stated error rate by simulation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest

from evaluation.result import TaskScore
from evaluation.statistics import Measure, closed_aggregation
from search.racing.choose import make_racer
from search.racing.contract import Contender, Incumbent, Past, Promote, Racer, Stop
from search.racing.halving import ETA, LATEST
from search.racing.hyperband import Hyperband
from search.racing.off import Off
from search.racing.paired import ALPHA, PairedTest
from search.racing.rungs import plan_rungs, plan_sizes
from search.searchspec import Prune

MEAN = Measure("mean", {"t": 1.0}, {"t": closed_aggregation("mean")})


@dataclass(frozen=True)
class Table:
    """A field written down."""

    incumbent: Incumbent | None = None
    values: Mapping[int, Mapping[int, float]] = field(default_factory=dict)
    measure: Measure = MEAN

    def seen(self, rung: int) -> Mapping[int, float]:
        """As the field's."""
        return self.values.get(rung, {})

    def past(self, rung: int) -> Past:
        """Nothing: no document is written down."""
        nothing = np.zeros(0)
        return Past((), nothing, nothing, nothing.reshape(0, 0), (), {})

    def predecessors(self, rung: int) -> None:
        """None."""


def score(items: Sequence[float]) -> tuple[TaskScore, ...]:
    value = float(np.mean(items))
    return (
        TaskScore(
            task="t", metric="acc", value=value, stderr=None, higher_is_better=True,
            documents=tuple(range(len(items))), items=tuple(items),
        ),
    )  # fmt: skip


def contender(items: Sequence[float], number: int = 9, rung: int = 0) -> Contender:
    return Contender(number, rung, float(np.mean(items)), score(items))


def best(items: Sequence[float]) -> Incumbent:
    return Incumbent(1, float(np.mean(items)), score(items))


def test_rungs_double_and_a_small_study_has_one() -> None:
    assert plan_rungs("paired_test", 888, 2) == (40, 80, 160, 320, 888)
    assert plan_rungs("halving", 2000, 2)[:2] == plan_rungs("history", 2000, 2)[:2] == (80, 160), (
        "halving begins higher"
    )
    assert plan_rungs("hyperband", 650, 2) == (50, 100, 200, 400, 650), "with a thirteenth at most"
    assert plan_rungs("halving", 400, 2)[:2] == (40, 80), "and no less than the others"
    assert plan_rungs("paired_test", 2000, 30)[:2] == (120, 240), "four of each task at least"
    assert plan_rungs("one_shot", 888, 2) == (40, 888)
    assert plan_rungs("hyperband", 119, 1) == (119,) == plan_rungs("off", 119, 1)
    assert plan_rungs("off", 5000, 1) == (160, 5000), "where nobody is stopped: the winner is explained there"
    sizes = plan_sizes({"a": 300, "b": 100, "c": 50}, ["a", "b"], (40, 80, 400))
    assert sizes == {"a": (30, 60, 300), "b": (10, 20, 100), "c": (0, 0, 50)}


def test_the_paired_test_stops_what_loses_six_documents_and_wins_none() -> None:
    """With one rung below the last the level is .05: of 5 lost documents p is 1/32, of 4 it is 1/16."""
    theirs, racer = [1.0] * 40, PairedTest(2, 0)
    five, four = [0.0] * 5 + [1.0] * 35, [0.0] * 4 + [1.0] * 36
    stopped = racer.decide(contender(five), Table(best(theirs)))
    assert isinstance(stopped, Stop) and "trial 1" in stopped.why and "0.031" in stopped.why
    assert racer.decide(contender(four), Table(best(theirs))) == Promote(1)
    assert PairedTest(5, 0).decide(contender(five), Table(best(theirs))) == Promote(1), "the level is shared by 4 looks"
    assert racer.decide(contender([0.0] * 40), Table()) == Promote(1), "nobody to lose to"
    assert racer.decide(contender(theirs), Table(best(four))) == Promote(1)


def test_the_paired_test_looks_at_the_documents_of_the_rung_alone() -> None:
    theirs = [0.0] * 20 + [1.0] * 80
    same = PairedTest(3, 0).decide(contender([0.0] * 20 + [1.0] * 20), Table(best(theirs)))
    assert same == Promote(1), "the incumbent's 80 % on all documents are 50 % on these"


def test_an_equal_trial_is_stopped_no_more_often_than_stated() -> None:
    """Equal on all 400 documents, different on 160 of them; 240 races of up to 4 rungs."""
    rng, rungs = np.random.default_rng(7), (40, 80, 160, 400)
    racer, stops = PairedTest(len(rungs), 3), 0
    ours = np.repeat([0.0, 1.0, 1.0, 0.0], [80, 80, 120, 120])
    theirs = np.repeat([1.0, 0.0, 1.0, 0.0], [80, 80, 120, 120])
    for number in range(240):
        order = rng.permutation(400)
        field_ = Table(best(theirs[order].tolist()))
        for rung, size in enumerate(rungs[:-1]):
            found = racer.decide(contender(ours[order][:size].tolist(), number, rung), field_)
            if isinstance(found, Stop):
                stops += 1
                break
    assert stops <= ALPHA * 240 and stops > 0, "and the test does look"


def test_halving_lets_two_of_the_last_dozen_go_on() -> None:
    racer = make_racer("halving", 4, 0, lambda number: True)
    assert (ETA, LATEST) == (6, 11) and racer.entry(17) == 0
    early = dict.fromkeys(range(30), 0.9)  # long ago
    seen = {0: early | dict(enumerate([0.1, 0.2, 0.2, 0.25, 0.3, 0.3, 0.3, 0.3, 0.4, 0.4, 0.5], start=50))}
    half, less, equal = contender([1.0, 0.0]), contender([1.0, 0.0, 0.0]), contender([0.4])
    assert racer.decide(half, Table(values=seen)) == Promote(1)
    assert racer.decide(equal, Table(values=seen)) == Promote(1), "one is better, two are its equals"
    assert racer.decide(less, Table(values=seen)) == Stop("halving: number 4 of the last 12 after 3 documents; 2 go on")
    assert racer.decide(contender([0.0], rung=2), Table(values=seen)) == Promote(3), "the first of its rung"
    assert isinstance(racer.decide(contender([0.0]), Table(values={0: {1: 0.1}})), Stop), "of two the better one"


@pytest.mark.parametrize("gain", [0.0, 0.01], ids=["level", "getting better"])
def test_halving_promotes_about_a_sixth_however_the_search_goes(gain: float) -> None:
    """Each of 300 trials is better by so many standard deviations than the one before: three in all."""
    racer, rng = make_racer("halving", 3, 0, lambda number: True), np.random.default_rng(0)
    seen: dict[int, float] = {}
    promoted = 0
    for number, value in enumerate(rng.normal(size=300) + gain * np.arange(300)):
        found = racer.decide(Contender(number, 0, float(value), ()), Table(values={0: seen}))
        promoted += isinstance(found, Promote)
        seen[number] = float(value)
    assert 40 <= promoted <= 60


def test_hyperband_deals_thirty_six_to_six_to_one_and_compares_within_a_bracket() -> None:
    racer = Hyperband(5, 0, lambda number: number >= 4)
    entries = [racer.entry(number) for number in range(4, 4304)]
    assert [round(entries.count(b) / 100) for b in range(4)] == [36, 6, 1, 0]
    assert entries == [Hyperband(5, 0, lambda number: True).entry(number) for number in range(4, 4304)]
    mine = [n for n in range(4, 100) if racer.entry(n) == 1][:6]
    others = [n for n in range(4, 100) if racer.entry(n) == 0][:6]
    seen = {1: dict.fromkeys(others, 0.9) | dict.fromkeys(mine[1:], 0.1)}
    assert racer.decide(contender([0.0, 1.0], mine[0], 1), Table(values=seen)) == Promote(2)
    baselines = {1: seen[1] | dict.fromkeys(range(4), 0.9)}
    assert isinstance(racer.decide(contender([0.0, 1.0], mine[0], 1), Table(values=baselines)), Stop)
    assert Hyperband(2, 0, lambda number: True).entry(5) == 0


def test_one_shot_stops_everybody_and_off_nobody() -> None:
    one_shot = make_racer("one_shot", 2, 0, lambda number: True)
    assert one_shot.entry(3) == 0 and isinstance(one_shot.decide(contender([1.0]), Table()), Stop)
    assert Off(4).entry(3) == 3 and Off(4).decide(contender([0.0]), Table(best([1.0]))) == Promote(3)


@pytest.mark.parametrize("policy", ["off", "paired_test", "halving", "hyperband", "one_shot", "history"])
def test_with_one_rung_nothing_races(policy: Prune) -> None:
    racer: Racer = make_racer(policy, 1, 0, lambda number: True)
    assert isinstance(racer, Off) and racer.entry(0) == 0
