"""What is made of the results: kept line by line, ranked, compared by seed, drawn."""

from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks.search import main
from benchmarks.search_entrants import RIVALS, entrant, ours
from benchmarks.search_figure import draw
from benchmarks.search_items import ItemCache
from benchmarks.search_report import ahead, best_rival, by_search, share_to_reach, tables
from benchmarks.search_run import SHARES, Line, Point, Terms, append, read_lines
from search.strategies.declared import STRATEGIES

TERMS = Terms(100, 0.78)


def _line(search: str, seed: int, first: float | None, last: float) -> Line:
    """A curve that rises evenly over the checkpoints."""
    steps = len(SHARES) - 1
    curve = tuple(
        Point(share, None if first is None and i == 0 else 0.9, None if first is None and i == 0 else value)
        for i, share in enumerate(SHARES)
        for value in [(first or 0.0) + (last - (first or 0.0)) * i / steps]
    )
    numbers = {"documents": 300, "held": 900, "spent": 30_000, "measured": 0, "evaluations": 100}
    return Line(
        "tiny",
        search,
        search in RIVALS,
        seed,
        TERMS,
        "0f" * 16,
        **numbers,
        seconds=9.0,
        scoring_seconds=1.0,
        ended=False,
        curve=curve,
    )


LINES = [
    _line(search, seed, first, last + 0.01 * seed)
    for seed in range(3)
    for search, first, last in (("sakana", 0.1, 0.3), ("known", 0.3, 0.5), ("tpe", 0.3, 0.7), ("random", None, 0.4))
]


def test_results_are_kept_and_the_last_of_a_search_counts(tmp_path: Path) -> None:
    path = tmp_path / "out" / "results.jsonl"
    for line in (*LINES, _line("tpe", 0, 0.1, 0.2)):
        append(path, line)
    found = read_lines(path)
    assert len(found) == len(LINES)
    assert {(line.search, line.seed): line for line in found}["tpe", 0] == _line("tpe", 0, 0.1, 0.2)
    assert read_lines(tmp_path / "nothing") == []


def test_ours_come_first_and_the_best_rival_is_the_bar() -> None:
    runs = by_search(LINES)
    assert list(runs) == ["tpe", "known", "random", "sakana"]
    assert best_rival(runs) == "known"


def test_the_budget_to_reach_a_score_lies_between_checkpoints() -> None:
    lines = [_line("tpe", 0, 0.0, 0.7)]  # 0.1 more at each checkpoint
    assert share_to_reach(lines, 0.25) == pytest.approx((SHARES[2] + SHARES[3]) / 2)
    assert share_to_reach(lines, 0.0) == SHARES[0]
    assert share_to_reach(lines, 0.71) is None


def test_a_seed_is_won_by_whoever_is_ahead_of_all_rivals_of_that_seed() -> None:
    runs = by_search(LINES)
    assert ahead(runs, runs["tpe"], 1.0) == (3, 3) and ahead(runs, runs["tpe"], SHARES[0]) == (0, 3)
    better = [*LINES, _line("qmc", 1, 0.8, 0.9)]
    assert ahead(by_search(better), runs["tpe"], 1.0) == (2, 3)
    alone = [_line("tpe", 7, 0.1, 0.9)]
    assert ahead(by_search([*LINES, *alone]), alone, 1.0) == (0, 0), "nobody else had that seed"


def test_a_rival_of_few_seeds_is_not_the_bar() -> None:
    assert best_rival(by_search([*LINES, _line("qmc", 0, 0.8, 0.9)])) == "known"


def test_a_table_has_a_row_for_each_search() -> None:
    text = tables(LINES)
    rows = [line for line in text.splitlines() if line.startswith("| `") or line.startswith("| **")]
    assert len(rows) == 4 and rows[0].startswith("| **`tpe`**")
    assert "+0.200 (+0.200 – +0.200)" in rows[0]  # every seed differs by as much
    assert len({row.count("|") for row in text.splitlines() if row.startswith("|")}) == 1
    assert tables([]) == ""


def test_a_title_speaks_of_all_seeds() -> None:
    other = replace(_line("tpe", 1, 0.1, 0.2), documents=340, held=860)
    assert "about 320 search documents (about 880 held out)" in tables([_line("tpe", 0, 0.1, 0.2), other])


def test_the_figure_is_xml_with_a_line_for_each_search() -> None:
    root = ElementTree.fromstring(draw([*LINES, *(LINES[:1])]))
    lines = root.findall(".//{http://www.w3.org/2000/svg}polyline")
    assert len(lines) == 4


def test_items_are_kept_by_recipe_and_task(tmp_path: Path) -> None:
    cache, tasks = ItemCache(tmp_path / "zoo.items"), {"add": "d1", "rev": "d2"}
    cache.add("recipe", tasks, {"add": {1: 1.0, 2: 0.0}})
    cache.add("recipe", tasks, {"add": {3: 1.0}, "rev": {5: [1, 2]}})
    cache.close()
    again = ItemCache(tmp_path / "zoo.items")
    assert again.get("recipe", tasks) == {"add": {1: 1.0, 2: 0.0, 3: 1.0}, "rev": {5: [1, 2]}}
    assert again.get("recipe", {"add": "d9"}) == again.get("other", tasks) == {}
    again.close()


def test_every_strategy_takes_part() -> None:
    assert {name for name, row in STRATEGIES.items() if row.alone} <= set(ours())
    for name in ours():
        entrant(name)
    with pytest.raises(ValueError, match="unknown"):
        entrant("magic")


def test_the_report_is_printed_of_what_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for line in LINES:
        append(tmp_path / "results.jsonl", line)
    assert main(["--out", str(tmp_path), "--report", "--figure", str(tmp_path / "figures" / "search.svg")]) == 0
    assert capsys.readouterr().out.strip() == tables(LINES)
    assert (tmp_path / "figures" / "search.svg").read_text() == draw(LINES)
