"""What a person reads of what a winner owes to what: no more than its documents show."""

import io
from typing import Any

import pytest
from rich.console import Console

from api.card import score_lines
from api.conclusion import conclusion
from api.explained import explained
from api.report import verdict_tables
from search.explain.record import Ablation, Direction, Explanation, Importance
from search.verdict import Finalist, Verdict

SHARES = Importance(
    trials=60,
    explained=0.71,
    experts={"add": 0.5, "rev": 0.1},
    places={"layers0-1": 0.3, "layers2-3": 0.7},
    parameters={"ties.weight": 0.6, "ties.density": 0.25, "method": 0.15},
    directions=(Direction(parameter="ties.weight[add]", share=0.3, up=-0.01, down=-0.02),),
)


def part(change: Any, difference: float, p: float, expert: str | None = None) -> Ablation:
    numbers = {"score": 0.7 - difference, "low": difference - 0.05, "high": difference + 0.05}
    tasks = {"t": difference / 2, "u": difference * 2, "v": -0.1}
    about = {"change": change, "expert": expert, "recipe_digest": "d", "difference": difference, "p_value": p}
    return Ablation(**about, tasks=tasks, **numbers)


def explanation(*parts: Ablation, **more: Any) -> Explanation:
    return Explanation(trial=7, documents=160, score=0.7, ablations=parts, **more)


def said(*parts: Ablation, **more: Any) -> str:
    return " ".join(explained(explanation(*parts, **more)))


def test_who_matters_is_named_with_what_that_costs_the_dearest_first() -> None:
    found = said(
        part("without", 0.05, 0.01, "dic"),
        part("without", 0.31, 0.0001, "add"),
        part("without", 0.01, 0.4, "rev"),
        part("without", -0.02, 0.3, "txt"),
        part("without", -0.04, 0.02, "bad"),
    )
    assert found == (
        "The winner loses 0.310 without add, 0.050 without dic (on 160 search documents). It gains 0.040 without bad "
        "(on 160 search documents). Leaving out rev or txt alone costs nothing that 160 documents show."
    )


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (part("rounded", 0.0, 1.0), "Rounding its numbers to two digits costs nothing."),
        (part("rounded", 0.004, 0.3), "Rounding its numbers to two digits costs nothing that these documents show."),
        (part("rounded", 0.03, 0.01), "Rounding its numbers to two digits costs 0.030."),
        (part("flat", 0.06, 0.001), "The same numbers in all layers cost 0.060."),
        (part("flat", -0.06, 0.001), "The same numbers in all layers gain 0.060."),
        (Ablation(change="flat", recipe_digest="d", why="NaN"), "The same numbers in all layers could not be scored"),
        (
            Ablation(change="without", expert="a", recipe_digest="d", why="NaN"),
            "Without a it could not be scored (NaN)",
        ),
    ],
)
def test_a_change_costs_what_shows(change: Ablation, sentence: str) -> None:
    assert said(change).startswith(sentence)


def test_who_takes_no_part_who_cannot_be_left_out_and_what_scores_depended_on() -> None:
    found = said(unused=("a", "b", "c"), inseparable=("d",), importance=SHARES)
    assert found == (
        "It makes no use of a, b and c. Who could not be left out: d. Over 60 trials the score depended most on the "
        "weights of add (50%), ties.density (25%), method (15%), by a model that explains 71% of its variance."
    )


def verdict(found: Explanation | None) -> Verdict:
    won = Finalist(
        label="tpe", trial=7, recipe_digest="d", search=0.75, holdout=0.7, low=0.6, high=0.8, tasks={},
        winner_minus_this=None,
    )  # fmt: skip
    documents = {"search": 100, "holdout": 50}
    return Verdict(
        objective="mean",
        finalists=(won,),
        winner=7,
        best_expert=None,
        documents=documents,
        trials=60,
        explanation=found,
    )


def shown(found: Verdict) -> str:
    console = Console(file=io.StringIO(), width=120)
    console.print(*verdict_tables(found))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_tables_show_every_change_with_its_interval() -> None:
    refused = Ablation(change="flat", recipe_digest="d", why="NaN")
    some = explanation(part("without", 0.31, 0.0001, "[red]add"), refused, importance=SHARES)
    text = shown(verdict(some))
    row = next(line for line in text.splitlines() if "without [red]add" in line)
    assert [cell in row for cell in ("0.3900", "+0.3100", "+0.2600 – +0.3600", "< 0.001", "u (+0.6200)")] == [True] * 5
    assert "NaN" in next(line for line in text.splitlines() if "all layers alike" in line)
    assert "the 160 search documents on which the winner has 0.7000" in " ".join(text.split())
    assert all(line in text for line in ("weights of add", "at layers2-3", "ties.density", "71%"))


def test_a_verdict_without_says_nothing() -> None:
    silent, bare = verdict(None), verdict(Explanation(trial=7))
    for found in (silent, bare):
        assert "owes" not in shown(found) and "without" not in conclusion(found)
    assert "The winner loses" in conclusion(verdict(explanation(part("without", 0.3, 0.01, "add"))))


def test_the_card_of_the_winner_has_a_paragraph_and_no_other() -> None:
    found = verdict(explanation(part("without", 0.3, 0.01, "add")))
    assert score_lines(found, 7, ())[-2:] == ["", "The winner loses 0.300 without add (on 160 search documents)."]
    other = found.model_copy(update={"explanation": Explanation(trial=3, unused=("a",))})
    assert "no use" not in " ".join(score_lines(other, 7, ()))
