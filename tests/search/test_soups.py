"""The rules of soups, each on a case worked by hand; looking ahead changes no decision."""

from random import Random
from typing import Any

import pytest

from merging.errors import InvalidStudy
from search.soups.counts import described, labelled, reduced
from search.soups.paired import Paired
from search.strategies.choose import make_strategy
from search.strategies.contract import Exhausted, Observation, Proposal
from search.strategies.opening import Opening
from tests.search.kitchen import Answers, Worth, landscape, pantry, rights, scores_of, serve, table, written

ABC = pantry("abc")
SINGLES = {"a": 0.5, "b": 0.4, "c": 0.3}
OPTIONS: tuple[dict[str, Any], ...] = (
    {},
    {"repeats": False},
    {"repeats": False, "retry": True},
    {"rule": "paired", "p": 0.4},
    {"margin": 0.5, "backward": True},
    {"guard": 0.05, "order": "steepest"},
    {"order": "steepest", "repeats": False, "backward": True},
)
PRUNED: tuple[dict[str, Any], ...] = ({}, {"order": "score"}, {"rule": "paired"}, {"variant": "ranked"})


def test_the_papers_rule_offers_each_expert_once_and_keeps_it_at_a_tie() -> None:
    worth = table(SINGLES | {"ab": 0.5, "abc": 0.45, "aab": 0.9})
    served = serve("greedy_soup", ABC, worth, repeats=False)
    assert served.soups == ["ab", "abc"] and served.end == "a + b"
    assert served.labels == ["+b", "+c"]
    assert served.lines == (
        "begins with the best expert, a: 0.5000",
        "+b accepted: 0.5000 = 0.5000",
        "+c rejected: 0.4500 < 0.5000",
        "ends with a + b",
    )


def test_later_passes_let_an_expert_count_twice_if_that_gains() -> None:
    worth = table(SINGLES | {"ab": 0.6, "abc": 0.55, "aab": 0.65, "aaab": 0.65, "aabb": 0.6})
    served = serve("greedy_soup", ABC, worth)
    assert served.soups == ["ab", "abc", "aab", "aabc", "aaab"], "aabb is ab, which is known"
    assert served.end == "2 a + b", "aaab is as good, and does not gain"


def test_the_rejected_are_offered_once_more_when_the_soup_has_changed() -> None:
    worth = table(SINGLES | {"ab": 0.4, "ac": 0.6, "abc": 0.7})
    assert serve("greedy_soup", ABC, worth, repeats=False).end == "a + c"
    served = serve("greedy_soup", ABC, worth, repeats=False, retry=True)
    assert served.end == "a + b + c" and served.labels == ["+b", "+c", "+b"]
    unchanged = serve("greedy_soup", ABC, table(SINGLES), repeats=False, retry=True)
    assert unchanged.labels == ["+b", "+c"] and unchanged.end == "a"


def test_who_only_keeps_the_best_expert_is_told_why() -> None:
    served = serve("greedy_soup", ABC, table(SINGLES | {"ab": 0.45}))
    assert served.lines == (
        "begins with the best expert, a: 0.5000",
        "+b rejected: 0.4500 < 0.5000",
        "+c rejected: 0.1000 < 0.5000",
        "ends with a",
    )
    waiting = make_strategy("greedy_soup", Opening(ABC, 0))
    assert waiting.explain() == ("waits for the experts' own scores",)  # type: ignore[attr-defined]


def two_rights_more(soup: str) -> Answers:
    """The soup a + b has two documents more right than a, and none less; others have none."""
    return rights({"a": "1111100000", "b": "1111000000", "ab": "1111111000"}.get(soup, "0000000000"))


def test_the_paired_rule_asks_for_evidence() -> None:
    """Of two documents that differ, both better: p = 1/4 by one side."""
    assert serve("greedy_soup", ABC, two_rights_more).end == "a + b"
    strict = serve("greedy_soup", ABC, two_rights_more, rule="paired")
    assert strict.end == "a" and "+b rejected: 0.7000 > 0.5000, p = 0.25" in strict.lines
    loose = serve("greedy_soup", ABC, two_rights_more, rule="paired", p=0.26)
    assert loose.end == "a + b" and "+b accepted: 0.7000 > 0.5000, p = 0.25" in loose.lines


def test_a_p_of_the_paired_rule_depends_on_the_two_soups_alone() -> None:
    first, second = (scores_of(known) for soup in ("a", "ab") if (known := landscape(1, 200)(soup)))
    found = [Paired(None, 3).p_better(second, first, ("a", "ab")) for _ in range(2)]
    assert found[0] == found[1] and found[0] != Paired(None, 4).p_better(second, first, ("a", "ab"))


def test_a_margin_is_counted_in_standard_errors_of_the_difference() -> None:
    """Two of ten more: the difference is .2, its standard error sqrt(.2 x .8 / 10) = .126; .2 is 1.58 of them."""
    assert serve("greedy_soup", ABC, two_rights_more, margin=1.4).end == "a + b"
    served = serve("greedy_soup", ABC, two_rights_more, margin=1.8)
    assert served.end == "a"
    said = next(line for line in served.lines if line.startswith("+b"))
    assert float(said.rpartition(" ")[2]) == pytest.approx(0.1265, abs=0.01)

    def one_less(soup: str) -> Answers:
        return rights({"a": "1111100000", "b": "1111000000", "ab": "1111000000"}.get(soup, "0000000000"))

    assert serve("greedy_soup", ABC, one_less).end == "a"
    assert serve("greedy_soup", ABC, one_less, margin=-2.0).end == "a + b", "below 0 it may be worse by as much"


def two_tasks(soup: str) -> Answers:
    """In all a + b is better than a, in the second task worse by .2; a + c better in both, and less so."""
    return {
        "a": {"t": [0.2] * 10, "u": [0.8] * 10},
        "ab": {"t": [0.9] * 10, "u": [0.6] * 10},
        "ac": {"t": [0.3] * 10, "u": [0.8] * 10},
    }.get(soup, {"t": [0.1] * 10, "u": [0.1] * 10})


def test_a_guard_lets_no_task_fall() -> None:
    assert serve("greedy_soup", ABC, two_tasks).end == "a + b"
    assert serve("greedy_soup", ABC, two_tasks, guard=0.2).end == "a + b"
    served = serve("greedy_soup", ABC, two_tasks, guard=0.1)
    assert served.end == "a + c"
    assert "+b rejected: 0.7500 > 0.5000, u falls by 0.2000" in served.lines
    assert serve("greedy_soup", ABC, two_tasks, guard=0).end == "a + c"


def test_the_steepest_order_takes_the_best_of_all_additions() -> None:
    worth = table(SINGLES | {"ab": 0.6, "ac": 0.7, "abc": 0.65})
    served = serve("greedy_soup", ABC, worth, order="steepest", repeats=False)
    assert served.soups == ["ab", "ac", "abc"] and served.end == "a + c"
    assert serve("greedy_soup", ABC, worth, repeats=False).end == "a + b + c", "one by one, b comes first"


def test_the_steepest_order_ends_after_as_many_rounds_as_there_are_experts() -> None:
    served = serve("greedy_soup", ABC, lambda soup: {"t": [len(soup) / 10] * 10}, order="steepest")
    assert served.ended and len(served.end) and sum("accepted" in line for line in served.lines) == 3


def test_what_does_no_harm_is_dropped_at_the_end() -> None:
    worth = table(SINGLES | {"ab": 0.6, "abc": 0.7, "bc": 0.7, "ac": 0.5})
    served = serve("greedy_soup", ABC, worth, repeats=False, backward=True)
    assert served.end == "b + c" and "-a accepted: 0.7000 = 0.7000" in served.lines
    assert served.labels == ["+b", "+c", "-a", "-b"], "without c it is a + b, which is known"
    assert serve("greedy_soup", ABC, worth, repeats=False).end == "a + b + c"


def test_pruning_drops_whose_removal_helps_most() -> None:
    worth = table(SINGLES | {"abc": 0.2, "bc": 0.25, "ac": 0.55, "ab": 0.5})
    served = serve("pruned_soup", ABC, worth)
    assert served.labels == ["all 3", "-a", "-b", "-c"] and served.end == "a + c"
    assert "-b accepted: 0.5500 > 0.2000" in served.lines and "-c rejected: 0.5000 < 0.5500" in served.lines


def test_pruning_one_by_one_begins_with_the_weakest() -> None:
    """Without c .3, then without b no better; in the second pass nothing changes."""
    worth = table(SINGLES | {"abc": 0.2, "ab": 0.6, "bc": 0.9})
    served = serve("pruned_soup", ABC, worth, order="score")
    assert served.labels == ["all 3", "-c"] and served.end == "a + b", "a and b alone are known"
    assert [line.split()[0] for line in served.lines[1:-1]] == ["-c", "-b", "-a", "-b", "-a"]
    once = serve("pruned_soup", ABC, worth, order="score", passes=1)
    assert [line.split()[0] for line in once.lines[1:-1]] == ["-c", "-b", "-a"]


def test_ranked_soups_are_of_the_best_one_two_three() -> None:
    served = serve("pruned_soup", ABC, table(SINGLES | {"ab": 0.6, "abc": 0.55}), workers=3, variant="ranked")
    assert served.soups == ["ab", "abc"] and served.labels == ["top 2", "top 3"] and served.most_open == 2
    assert served.lines == ("top 1: 0.5000", "top 2: 0.6000", "top 3: 0.5500", "ends with a + b")


def test_what_cannot_be_scored_is_rejected_and_experts_that_cannot_are_left_out() -> None:
    values = SINGLES | {"ab": 0.6}

    def worth(soup: str) -> Answers | None:
        return None if soup in ("c", "abc", "aab") else table(values)(soup)

    served = serve("greedy_soup", ABC, worth)
    assert served.end == "a + b" and "c" not in "".join(served.soups)
    assert "+a rejected: it could not be scored" in served.lines
    assert serve("pruned_soup", ABC, worth).soups == ["ab"]
    nothing = serve("greedy_soup", ABC, lambda soup: None)
    assert nothing.lines == ("ends: no expert could be scored alone",) and nothing.soups == []


def test_a_metric_without_values_of_documents_cannot_be_tested() -> None:
    def f1(soup: str) -> Answers:
        return {"t": [0.0, 1.0, 1.0]}

    found = make_strategy("greedy_soup", Opening(ABC, 0, options={"rule": "paired"}))
    for number, name in enumerate("abc"):
        recipe = ABC.uniform("linear", {n: float(n == name) for n in "abc"}, {})
        [score] = scores_of(f1(name))
        odd = (score.model_copy(update={"metric": "f1", "value": 0.9}),)
        found.observe(Observation(number, f"expert:{name}", None, recipe, 0.9, scores=lambda odd=odd: odd))  # type: ignore[misc]
    first = found.propose(3)
    assert isinstance(first, Proposal)
    found.observe(Observation(3, "greedy_soup", None, first.recipe, 0.9, scores=lambda: odd))
    with pytest.raises(InvalidStudy, match=r"search\.options.*f1.*rule: mean"):
        found.propose(4)


def in_turn(worth: Worth, names: str) -> tuple[list[str], str]:
    """The greedy rule as the paper has it, with later passes: soups in the order it asks for them, and the end."""
    known: dict[str, float] = {}
    asked: list[str] = []

    def value(counts: dict[str, int]) -> float:
        least = reduced(tuple(counts.values()))
        soup = "".join(name * n for name, n in zip(names, least, strict=True))
        if soup not in known:
            asked.append(soup)
            answers = worth(soup)
            assert answers is not None
            known[soup] = sum(answers["t"]) / len(answers["t"])
        return known[soup]

    single = {name: value({n: int(n == name) for n in names}) for name in names}
    order = sorted(names, key=lambda name: -single[name])
    counts = {name: int(name == order[0]) for name in names}
    best, candidates, added = single[order[0]], order[1:], True
    while added:
        added = False
        for name in candidates:
            tried = counts | {name: counts[name] + 1}
            found = value(tried)
            if found > best or (found == best and not counts[name]):
                counts, best, added = tried, found, True
        candidates = order
    return asked[len(names) :], described(tuple(counts.values()), names)


@pytest.mark.parametrize("key", range(6))
def test_one_worker_is_asked_for_what_the_plain_rule_needs_in_its_order(key: int) -> None:
    served = serve("greedy_soup", pantry("abcde"), landscape(key))
    asked, end = in_turn(landscape(key), "abcde")
    assert (served.soups, served.end) == (asked, end)


@pytest.mark.parametrize("name", ["greedy_soup", "pruned_soup"])
def test_looking_ahead_comes_to_the_same_soup(name: str) -> None:
    rng, space = Random(5), pantry("abcdef")
    for key in range(8):
        for options in OPTIONS if name == "greedy_soup" else PRUNED:
            alone = serve(name, space, landscape(key), **options)
            workers = rng.randint(2, 7)
            many = serve(name, space, landscape(key), workers=workers, shuffle=key, **options)
            assert many.lines == alone.lines, (key, workers, options)
            assert len(set(many.soups)) == len(many.soups), "nothing is scored twice"
            assert set(many.soups) >= set(alone.soups)


def test_idle_workers_look_ahead_and_the_rule_is_done_sooner() -> None:
    space = pantry("abcdefgh")
    alone, many = (serve("greedy_soup", space, landscape(2), workers=n, together=True) for n in (1, 7))
    assert (alone.most_open, many.most_open) == (1, 7)
    assert alone.rounds == len(alone.soups) and many.rounds < 0.6 * alone.rounds
    assert many.lines == alone.lines


def test_looking_ahead_leaves_the_last_trials_to_the_rule() -> None:
    space = pantry("abcdefgh")
    few = serve("greedy_soup", space, table({"a": 0.5}), workers=7, trials=18)
    assert few.most_open == 1 and few.soups == [f"a{name}" for name in "bcdefgh"]


@pytest.mark.parametrize("name", ["greedy_soup", "pruned_soup"])
def test_replayed_at_any_moment_it_goes_on_alike(name: str) -> None:
    rng, space = Random(7), pantry("abcd")
    for options in OPTIONS if name == "greedy_soup" else PRUNED:
        whole = serve(name, space, landscape(11), **options)
        cut = rng.randint(4, len(whole.told))
        again = make_strategy(name, Opening(space, 3, trials=500, options=options))
        for one in whole.told[:cut]:
            again.reserve(one.number, Proposal(None, one.recipe))
        for one in whole.told[:cut]:
            again.observe(one)
        following = again.propose(cut)
        if cut == len(whole.told):
            assert isinstance(following, Exhausted)
        else:
            assert isinstance(following, Proposal) and following.recipe == whole.told[cut].recipe
            assert following.recipe is not None and written(following.recipe) == whole.soups[cut - 4]


def test_counts_of_one_average_are_one_and_labels_are_cut() -> None:
    assert len(labelled("+" + "x" * 100)) == 100 and labelled("+x") == "+x"
    assert reduced((2, 4, 0)) == (1, 2, 0) and described((1, 2, 0), "abc") == "a + 2 b"
