"""Stopping by what earlier candidates say: the policy on planted candidates, and a study killed anywhere."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

import search.controller
import search.course
import search.racing.history
import search.rescoring
from db.store import open_home
from evaluation.result import TaskScore
from evaluation.statistics import Measure, closed_aggregation
from merging.catalog import Scalar
from merging.errors import InvalidInput
from search.estimates.contract import Floats
from search.racing.choose import make_racer
from search.racing.contract import Contender, Incumbent, Past, Promote, Racer, Stop, row_of
from search.racing.history import ENOUGH, learn, settled, table
from tests.search.test_race import Killed, finish, items, opened, racing, run, told

ALL, RUNG = 400, 40
WEIGHTS = ("w0", "w1")


@dataclass(frozen=True)
class Planted:
    """Complete trials on one rung: the policies' `Field`. The incumbent is the best of them."""

    known: Past

    @property
    def incumbent(self) -> Incumbent | None:
        """The best complete trial."""
        if not self.known.numbers:
            return None
        best = int(self.known.values.argmax())
        return Incumbent(self.known.numbers[best], float(self.known.values[best]), ())

    @property
    def measure(self) -> Measure:
        """The mean."""
        return Measure("mean", {"t": 1.0}, {"t": closed_aggregation("mean")})

    def seen(self, rung: int) -> Mapping[int, float]:
        """As the field's."""
        return dict(zip(self.known.numbers, self.known.on_rung.tolist(), strict=True))

    def past(self, rung: int) -> Past:
        """As the field's."""
        return self.known

    def predecessors(self, rung: int) -> Past | None:
        """None."""


def candidates(count: int, seed: int) -> tuple[Floats, tuple[Mapping[str, Scalar], ...]]:
    """Items, [candidates, documents], and weights, whose sum decides how many documents are right."""
    rng = np.random.default_rng(seed)
    hard = np.random.default_rng(77).random(ALL)
    weights = rng.uniform(0.2, 0.45, (count, 2))
    lucky = rng.random((count, ALL)) < 0.1
    share = weights.sum(axis=1)[:, None]
    found = np.where(lucky, rng.random((count, ALL)), hard) < share
    return found.astype(float), tuple(dict(zip(WEIGHTS, row, strict=True)) for row in weights.tolist())


def field_of(count: int) -> Planted:
    found, params = candidates(count, 1)
    documents = {"t": tuple(range(RUNG))}
    return Planted(
        Past(tuple(range(count)), found.mean(axis=1), found[:, :RUNG].mean(axis=1), found[:, :RUNG], params, documents)
    )


def contender(row: Floats, params: Mapping[str, Scalar] | None, number: int = 900) -> Contender:
    score = TaskScore(
        task="t", metric="acc", value=float(row[:RUNG].mean()), stderr=None, higher_is_better=True,
        documents=tuple(range(RUNG)), items=tuple(row[:RUNG].tolist()),
    )  # fmt: skip
    return Contender(number, 0, score.value, (score,), params)


def test_few_complete_trials_are_halved() -> None:
    rows, params = candidates(1, 5)
    racer, halving = make_racer("history", 4, 0, lambda number: True), make_racer("halving", 4, 0, lambda number: True)
    known, asked = field_of(ENOUGH - 1), contender(rows[0], params[0])
    assert racer.entry(7) == 0 and racer.decide(asked, known) == halving.decide(asked, known)


def decisions(racer: Racer, known: Planted, count: int = 200) -> list[Promote | Stop]:
    rows, params = candidates(count, 9)
    return [racer.decide(contender(rows[i], params[i], 900 + i), known) for i in range(count)]


def test_who_may_be_the_best_goes_on_and_the_others_estimate_is_kept() -> None:
    known = field_of(60)
    rows, _ = candidates(200, 9)
    best, full = known.known.values.max(), rows.mean(axis=1)
    found = decisions(make_racer("history", 4, 0, lambda number: True), known)
    stopped = np.array([isinstance(decision, Stop) for decision in found])
    assert 0.5 < stopped.mean() < 1.0
    assert stopped[full > best + 0.02].mean() < 0.2 < stopped[full < best - 0.1].mean()
    estimates = np.array([decision.estimate for decision in found if isinstance(decision, Stop)], float)
    plain = np.abs(rows[stopped, :RUNG].mean(axis=1) - full[stopped])
    assert np.abs(estimates - full[stopped]).mean() < 0.5 * plain.mean(), "better than what 40 documents say alone"
    assert "history: estimated at" in next(d.why for d in found if isinstance(d, Stop))


def test_a_decision_can_be_made_again_by_a_policy_that_remembers_nothing() -> None:
    known = field_of(60)
    same = make_racer("history", 4, 0, lambda number: True)
    decisions(same, field_of(50))  # it learned from others before
    assert decisions(same, known, 30) == decisions(make_racer("history", 4, 0, lambda number: True), known, 30)


def test_parameters_are_read_where_enough_trials_have_them() -> None:
    known = field_of(40).known
    assert learn(known, WEIGHTS).names == WEIGHTS
    few = replace(known, params=(*known.params[: ENOUGH - 1], *[None] * (41 - ENOUGH)))
    assert learn(few, WEIGHTS).names == () and table([None], ()) is None
    enough = replace(known, params=(*known.params[:ENOUGH], *[None] * (40 - ENOUGH)))
    assert learn(enough, WEIGHTS).names == WEIGHTS
    rows, _ = candidates(1, 5)
    outside = make_racer("history", 4, 0, lambda number: True).decide(contender(rows[0], None), Planted(known))
    assert isinstance(outside, Promote | Stop), "a recipe outside the space is judged by its items"


def test_behind_a_proxy_it_sees_the_rung_that_the_documents_have() -> None:
    @dataclass(frozen=True)
    class Later(Planted):
        def past(self, rung: int) -> Past:
            assert rung == 1, "rung 0 is the proxy's"
            return self.known

    known = field_of(60)
    rows, params = candidates(1, 5)
    asked = contender(rows[0] * 0.3, params[0])
    alone = make_racer("history", 4, 0, lambda number: True).decide(asked, known)
    proxied = make_racer("history", 5, 0, lambda number: True, proxied=True)
    assert isinstance(alone, Stop) and proxied.decide(replace(asked, rung=1), Later(known.known)) == alone


def test_of_many_trials_the_latest_few_wait() -> None:
    assert [settled(count) for count in (10, 63, 64, 65, 200, 1000, 1007, 1008)] == [
        10,
        63,
        64,
        64,
        200,
        992,
        992,
        1008,
    ]
    assert all(settled(count) >= count - count / 32 for count in range(10, 3000))
    known = field_of(67)
    first = replace(
        known.known, numbers=tuple(range(66)), values=known.known.values[:66], on_rung=known.known.on_rung[:66],
        items=known.known.items[:66], params=known.known.params[:66],
    )  # fmt: skip
    rows, params = candidates(1, 5)
    asked = contender(rows[0], params[0])
    assert learn(known.known, WEIGHTS).estimate(asked, known.known) == learn(first, WEIGHTS).estimate(asked, first)


def test_rows_follow_the_documents_and_items_that_are_sums_are_ratios() -> None:
    about = {"metric": "m", "value": 0.0, "stderr": None, "higher_is_better": True}
    scores = (
        TaskScore(task="b", documents=(2, 5), items=([6.0, 3.0], [4.0, 8.0]), **about),
        TaskScore(task="a", documents=(1,), items=(True,), **about),
    )
    assert row_of(scores, {"a": (1,), "b": (5, 2)}).tolist() == [1.0, 0.5, 2.0]
    with pytest.raises(InvalidInput, match=r"scores\.b.*3.*not scored"):
        row_of(scores, {"b": (3,)})


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> int:
    """A study of few trials learns from its own: six complete ones are enough."""
    monkeypatch.setattr(search.racing.history, "ENOUGH", 6)
    return 6


def test_a_study_stops_by_its_own_history_and_tells_the_estimates(soon: int, tmp_path: Path) -> None:
    store, study, finished = run(racing("history", trials=50), tmp_path)
    learned = [t for t in finished.trials if (t.why or "").startswith("history: estimated")]
    assert len(learned) > 5 and any((t.why or "").startswith("halving: number") for t in finished.trials)
    complete = [t for t in finished.trials if t.value is not None and t.estimate is None]
    last, order = learned[-1], store.studies.documents(study.id)["t", "search"]
    before = [t for t in complete if (t.told_order or 0) < (last.told_order or 0)]
    assert len(before) >= soon and f"by {len(before)} trials" in (last.why or "")
    wanted = order.ids[: order.sizes[last.rung]]
    rows = np.array([[items(store, t)[i] for i in wanted] for t in before], np.float32)
    past = Past(
        tuple(t.number for t in before), np.array([t.value for t in before], float), rows.mean(axis=1, dtype=float),
        rows, tuple(t.params for t in before), {"t": wanted},
    )  # fmt: skip
    scores = (store.evaluations.get(last.evaluation_id or 0).outcome).scores  # type: ignore[union-attr]
    asked = Contender(last.number, last.rung, last.steps[-1].value, scores, last.params)
    names = tuple(sorted(last.params or {}))
    assert last.estimate == pytest.approx(learn(past, names).estimate(asked, past)[0], abs=1e-6)


def test_killed_anywhere_it_decides_the_same(soon: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = racing("history", trials=30)
    _, _, undisturbed = run(spec, tmp_path / "one")
    passed, deaths = 0, 0

    def die(point: str) -> None:
        nonlocal passed
        passed += 1
        if passed % 41 == 0:
            raise Killed

    for module in (search.controller, search.course, search.rescoring):
        monkeypatch.setattr(module, "fault_point", die)
    store = open_home(tmp_path / "two")
    while True:
        try:
            finished = finish(opened(spec, store), store)
            break
        except Killed:
            deaths += 1
    assert deaths >= 4 and told(finished.trials) == told(undisturbed.trials)
    assert [t.why for t in finished.trials] == [t.why for t in undisturbed.trials]
    assert any((t.why or "").startswith("history: estimated") for t in finished.trials)
