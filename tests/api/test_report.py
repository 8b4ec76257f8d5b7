"""What people read: the verdict's conclusion says what the holdout supports and no more; recipes in a few words."""

import io
from typing import Any

import pytest
from rich.console import Console
from rich.table import Table

from api.conclusion import conclusion, p_value
from api.describe import describe, duration
from api.report import starts_table, tasks_table, trials_table, verdict_table
from db.records import Trial
from merging.recipe import GroupMerge, Recipe
from search.verdict import Against, Finalist, FrontPoint, Kept, PassedOver, ProxyTrust, StartScore, TaskPair, Verdict


def finalist(label: str, trial: int, search: float, holdout: float, against: Against | None) -> Finalist:
    return Finalist(
        label=label,
        trial=trial,
        recipe_digest="d",
        search=search,
        holdout=holdout,
        low=holdout - 0.1,
        high=holdout + 0.1,
        tasks={},
        winner_minus_this=against,
    )


def verdict(winner: int, *finalists: Finalist) -> Verdict:
    return Verdict(
        objective="mean",
        finalists=finalists,
        winner=winner,
        best_expert=0,
        documents={"search": 100, "holdout": 50},
        trials=10,
    )


def against(difference: float, p: float) -> Against:
    return Against(difference=difference, low=difference - 0.1, high=difference + 0.1, p_value=p)


def test_a_winner_that_is_ahead_is_said_to_be() -> None:
    said = conclusion(
        verdict(
            7,
            finalist("expert:add", 0, 0.3, 0.3, against(0.4, 0.0001)),
            finalist("uniform_soup", 1, 0.6, 0.69, against(0.01, 0.4)),
            finalist("tpe", 7, 0.75, 0.7, None),
        )
    )
    assert "beats the best expert (add) by 0.400 (p < 0.001)" in said
    assert (
        "On the holdout the winner is not significantly better than the uniform soup: "
        "+0.010 (95% interval -0.090 to +0.110, p = 0.400)." in said
    )
    assert "0.050 lower on the holdout" in said


def test_a_winner_that_is_behind_significantly_is_not_called_better() -> None:
    behind = finalist("expert:add", 0, 0.3, 0.8, against(-0.2, 0.001))
    said = conclusion(verdict(7, behind, finalist("tpe", 7, 0.75, 0.6, None)))
    assert "is worse than the best expert (add) by 0.200 (p = 0.001): use that one" in said


@pytest.mark.parametrize(
    ("more", "advice"),
    [
        ({"constraints": (Kept(constraint="t", search=-1.0),)}, "use that one if it meets your constraints."),
        ({"measured_as": "the weighted mean", "objective": "borda"}, None),
    ],
)
def test_who_is_ahead_on_the_holdout_is_advised_only_where_that_is_what_was_asked_for(
    more: dict[str, Any], advice: str | None
) -> None:
    behind = finalist("expert:add", 0, 0.3, 0.8, against(-0.2, 0.001))
    said = conclusion(verdict(7, behind, finalist("tpe", 7, 0.75, 0.6, None)).model_copy(update=more))
    assert "is worse than the best expert (add) by 0.200" in said
    assert advice in said if advice else "use that one" not in said


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({}, "No recipe tried scored better on the search documents than the best expert (add)."),
        ({"pruned": 3}, "No recipe scored in full scored better"),
        ({"missing": {"trial 4 (tpe)": "NaN"}}, "No recipe tried that could be compared scored better"),
        ({"constraints": (Kept(constraint="t", search=-1.0),)}, "No recipe tried that meets the constraints scored"),
        ({"constraints": (Kept(constraint="t", search=0.1),)}, "compared came nearer to meeting the constraints than"),
        ({"measured_as": "the weighted mean", "objective": "borda"}, "No recipe tried ranked higher by borda on"),
    ],
)
def test_a_baseline_that_won_is_said_to_be_the_best_of_those_that_were_in_question(
    more: dict[str, Any], sentence: str
) -> None:
    won = verdict(0, finalist("expert:add", 0, 0.3, 0.3, None))
    assert sentence in conclusion(won.model_copy(update=more))


def test_a_winner_that_is_not_the_knee_is_not_called_so() -> None:
    front = tuple(FrontPoint(trial=n, label="tpe", tasks={}) for n in (2, 7, 9))
    said = conclusion(verdict(7, *BOTH).model_copy(update={"front": front}))
    assert "It is no knee, but on a front of 3; the others are trials 2, 9." in said
    assert "front" not in conclusion(verdict(7, *BOTH).model_copy(update={"front": front[::2]}))


def test_a_holdout_that_was_read_again_is_not_called_unread() -> None:
    said = shown(verdict_table(verdict(7, *BOTH).model_copy(update={"holdout_reads": 3})))
    assert "no search decision read" not in said and "kept aside, read 3 times" in said


def test_who_is_missing_and_a_search_that_ended_early_are_said() -> None:
    ended = verdict(0, finalist("expert:add", 0, 0.3, 0.3, None))
    ended = ended.model_copy(update={"missing": {"expert:rev": "disk full"}, "exhausted": True})
    assert "Not compared: expert:rev (disk full)." in conclusion(ended)
    assert "ended after 10 trials" in conclusion(ended)


def shown(table: Table, width: int = 160) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(table)
    return " ".join(console.export_text().split())


BOTH = (finalist("expert:add", 0, 0.3, 0.32, against(0.4, 0.0001)), finalist("tpe", 7, 0.75, 0.7, None))


def test_the_table_shows_what_each_score_shrank_by() -> None:
    said = shown(verdict_table(verdict(7, *BOTH)))
    assert "│ 0.7500 │ 0.7000 │ +0.0500 │" in said and "│ 0.3000 │ 0.3200 │ -0.0200 │" in said
    assert "p: paired permutation test on the holdout" in said


def test_on_a_narrow_screen_no_number_of_the_verdict_is_cut() -> None:
    said = shown(verdict_table(verdict(7, *BOTH)), width=80)
    for number in ("0.7500", "0.7000", "+0.0500", "0.6000", "0.8000", "+0.4000", "(+0.3000", "+0.5000)", "< 0.001"):
        assert f" {number} " in said


def test_standard_errors_stand_beside_the_tasks_that_have_them() -> None:
    pairs = {
        "t": TaskPair(metric="acc", search=0.5, search_stderr=0.1, holdout=0.4, holdout_stderr=0.0123),
        "u": TaskPair(metric="f1", search=0.5, search_stderr=None, holdout=0.3, holdout_stderr=None),
    }
    said = shown(tasks_table(verdict(7, BOTH[1].model_copy(update={"tasks": pairs}))))
    assert "│ winner │ 0.4000 ± 0.0123 │ 0.3000 │" in said


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (
            {"optimism": 0.0311, "candidates": 60},
            "0.050 lower on the holdout; picking the best of 60 was expected to flatter it by 0.031.",
        ),
        (
            {"optimism": 0.0311, "candidates": 6, "pruned": 54},
            "picking the best of 6 scored in full was expected to flatter it by at least 0.031.",
        ),
        ({"holdout_reads": 2}, "The holdout was read 2 times, each time after more trials"),
        ({"holdout_reads": 2}, "its holdout score is no longer unseen"),
        (
            {"measured_as": "the weighted mean of the tasks", "objective": "borda"},
            "The winner is best by borda; scores, intervals and p are of the weighted mean of the tasks.",
        ),
        (
            {"pruned": 31, "documents_scored": 2_100, "documents_full": 10_000},
            "31 trials were stopped early: 21% of the documents of full scoring were scored.",
        ),
        (
            {"proxy": ProxyTrust(kind="entropy", correlation=0.314, trials=12)},
            "The rank correlation of the proxy (entropy) with the score is 0.31, over 12 trials.",
        ),
        ({"proxy": ProxyTrust(kind="entropy", correlation=None, trials=1)}, "is not known, over 1 trials."),
        (
            {"front": tuple(FrontPoint(trial=n, label="tpe", tasks={}) for n in (7, 2, 9))},
            "It is the knee of a front of 3; the others are trials 2, 9.",
        ),
        (
            {"constraints": (Kept(constraint="t at least 0.5", search=-0.1, holdout=0.02),)},
            "On the holdout it misses `t at least 0.5` by 0.020. It meets its constraints on the search documents.",
        ),
        (
            {"constraints": (Kept(constraint="a", search=0.1), Kept(constraint="b", search=-1))},
            "Nothing that was compared meets all constraints: the winner misses `a` by 0.100.",
        ),
    ],
)
def test_what_must_be_known_to_believe_it_is_said(more: dict[str, Any], sentence: str) -> None:
    found = verdict(7, *BOTH)
    assert sentence not in conclusion(found)
    assert sentence in conclusion(found.model_copy(update=more))


def start(label: str, trial: int, search: float, *, full: bool = True) -> StartScore:
    return StartScore(label=label, trial=trial, search=search, documents=100 if full else 40, full=full)


@pytest.mark.parametrize(
    ("best", "more", "sentence"),
    [
        (
            start("task_arithmetic:0.3", 4, 0.719),
            {},
            "On the search documents the search gained +0.031 over its best start (task_arithmetic:0.3).",
        ),
        (start("recipe:mine", 7, 0.75), {}, "The search found nothing better than its best start (recipe:mine)."),
        (
            start("earlier:old:3", 5, 0.76),
            {"constraints": (Kept(constraint="t", search=-1.0),)},
            "The search's best start (earlier:old:3) scored 0.010 more, and breaks the constraints by more.",
        ),
        (
            start("metagpt", 5, 0.8),
            {"measured_as": "the weighted mean", "objective": "borda"},
            "The winner ranks above the search's best start (metagpt).",
        ),
        (
            start("default:pleas_pp", 7, 0.75),
            {"passed_over": PassedOver(trial=9, difference=0.0104, stderr=0.0121)},
            "The winner is the search's best start (default:pleas_pp). Trial 9 scored 0.010 more than it on the search "
            "documents, which may be luck (standard error 0.012): `search.margin` says how much is enough.",
        ),
    ],
)
def test_what_the_search_added_to_its_best_start_is_said(best: StartScore, more: dict[str, Any], sentence: str) -> None:
    assert sentence in conclusion(verdict(7, *BOTH).model_copy(update={"best_start": best, **more}))


def test_what_is_the_best_start_without_compression_is_called_so() -> None:
    won = finalist("originals:4", 9, 0.75, 0.7, None)
    said = conclusion(verdict(9, BOTH[0], won).model_copy(update={"best_start": start("metagpt", 4, 0.7)}))
    assert "The winner is the search's best start (metagpt) with the experts as they are." in said


def test_of_a_baseline_that_won_it_is_not_said_twice() -> None:
    won = verdict(0, finalist("expert:add", 0, 0.3, 0.3, None))
    assert "start" not in conclusion(won.model_copy(update={"best_start": start("expert:add", 0, 0.3)}))


def test_the_starts_are_listed_with_what_they_were_scored_on() -> None:
    begun = [start("recipe:[mine]", 4, 0.7), start("metagpt", 5, 0.69, full=False)]
    begun += [start(f"pair:{n}", n, 0.1) for n in range(10, 20)]
    said = shown(starts_table(verdict(7, *BOTH).model_copy(update={"starts": tuple(begun)})))
    assert "│ recipe:[mine] │ 4 │ 0.7000 │ 100 │" in said and "│ metagpt │ 5 │ ≈ 0.6900 │ 40 │" in said
    assert "and 2 more" in said and "pair:18" not in said


@pytest.mark.parametrize(("difference", "p"), [(0.012, 0.05), (0.0, 1.0), (-0.02, 0.3)])
@pytest.mark.parametrize(("label", "name"), [("expert:add", "the best expert (add)"), ("uniform_soup", "the uniform")])
def test_a_winner_that_is_not_significantly_better_is_said_not_to_be(
    label: str, name: str, difference: float, p: float
) -> None:
    said = conclusion(verdict(7, finalist(label, 0, 0.3, 0.7, against(difference, p)), BOTH[1]))
    assert f"On the holdout the winner is not significantly better than {name}" in said
    assert (
        f": {difference:+.3f} (95% interval {difference - 0.1:+.3f} to {difference + 0.1:+.3f}, p = {p:.3f})." in said
    )
    assert "beats" not in said and "worse" not in said


def test_a_rival_that_won_is_named_and_still_compared_with_the_other() -> None:
    soup = finalist("uniform_soup", 1, 0.6, 0.7, None)
    said = conclusion(verdict(1, finalist("expert:add", 0, 0.3, 0.72, against(-0.02, 0.6)), soup))
    assert "The winner is the uniform soup itself. No recipe tried scored better" in said
    assert "not significantly better than the best expert (add): -0.020" in said


def test_an_ordinary_verdict_says_nothing_of_what_did_not_happen() -> None:
    said = conclusion(verdict(7, *BOTH))
    for word in ("read", "proxy", "constraint", "stopped", "front", "best by"):
        assert word not in said


def test_a_trial_that_was_stopped_shows_its_estimate() -> None:
    stopped = Trial(3, "tpe", None, 3, "pruned", None, "worse", 1, 0.0, 1.0, estimate=0.4321)
    assert "│ pruned │ ≈ 0.4321 │" in shown(trials_table([stopped]))


def test_other_peoples_text_is_no_markup() -> None:
    trial = Trial(0, "tpe", None, None, "failed", None, "OSError: cannot read [/mnt/x]", 1, 0.0, 1.0)
    console = Console(width=150, record=True, file=io.StringIO())
    console.print(trials_table([trial]))
    assert "[/mnt/x]" in console.export_text()


def test_a_baseline_that_won_is_said_to_be_unbeaten() -> None:
    said = conclusion(verdict(0, finalist("expert:add", 0, 0.3, 0.3, None)))
    assert "No recipe tried scored better on the search documents than the best expert (add)" in said


def test_a_baseline_that_was_preferred_to_a_better_score_is_said_to_be() -> None:
    passed = PassedOver(trial=9, difference=0.0104, stderr=0.0121)
    said = conclusion(verdict(0, finalist("expert:add", 0, 0.3, 0.3, None)).model_copy(update={"passed_over": passed}))
    assert "The winner is the best expert (add) itself. Trial 9 scored 0.010 more than the best expert (add)" in said
    assert "scored better on the search documents" not in said


def test_recipes_are_described_by_method_and_mean_weights() -> None:
    groups = (
        GroupMerge(layers=(0, 1), method="task_arithmetic", weights={"a": 0.2, "b": 1.0}),
        GroupMerge(layers=(1, 2), method="ties", weights={"a": 0.4, "b": 0.0}),
    )
    recipe = Recipe(schema_="mergesearch/recipe/v1", base="x", experts={"a": "a", "b": "b"}, groups=groups)
    assert describe(recipe) == "task_arithmetic×1, ties×1 (a 0.30, b 0.50 over 2 groups)"


@pytest.mark.parametrize(("seconds", "said"), [(42, "42s"), (185, "3m 05s"), (7800, "2h 10m")])
def test_durations(seconds: float, said: str) -> None:
    assert duration(seconds) == said


def test_p_values() -> None:
    assert p_value(0.0001) == "< 0.001" and p_value(0.03) == "0.030"
