"""What people read: the verdict's conclusion says what the holdout supports and no more; recipes in a few words."""

import io

import pytest
from rich.console import Console

from api.describe import describe, duration
from api.report import conclusion, p_value, trials_table
from db.records import Trial
from merging.recipe import GroupMerge, Recipe
from search.verdict import Against, Finalist, Verdict


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
    assert "does not show that the winner beats the uniform soup (p = 0.400)" in said
    assert "0.050 lower on the holdout" in said


def test_a_winner_that_is_behind_significantly_is_not_called_better() -> None:
    behind = finalist("expert:add", 0, 0.3, 0.8, against(-0.2, 0.001))
    said = conclusion(verdict(7, behind, finalist("tpe", 7, 0.75, 0.6, None)))
    assert "is worse than the best expert (add) by 0.200 (p = 0.001): use that one" in said


def test_who_is_missing_and_a_search_that_ended_early_are_said() -> None:
    ended = verdict(0, finalist("expert:add", 0, 0.3, 0.3, None))
    ended = ended.model_copy(update={"missing": {"expert:rev": "disk full"}, "exhausted": True})
    assert "Not compared: expert:rev (disk full)." in conclusion(ended)
    assert "ended after 10 trials" in conclusion(ended)


def test_other_peoples_text_is_no_markup() -> None:
    trial = Trial(0, "tpe", None, None, "failed", None, "OSError: cannot read [/mnt/x]", 1, 0.0, 1.0)
    console = Console(width=150, record=True, file=io.StringIO())
    console.print(trials_table([trial]))
    assert "[/mnt/x]" in console.export_text()


def test_a_baseline_that_won_is_said_to_be_unbeaten() -> None:
    said = conclusion(verdict(0, finalist("expert:add", 0, 0.3, 0.3, None)))
    assert "No recipe tried scored better on the search documents than the best expert (add)" in said


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
