"""Few-document estimates on planted candidates: what is known of them in closed form, or by construction."""

from collections.abc import Sequence

import numpy as np
import pytest

from search.estimates.anchors import Anchors, choose_anchors, k_means
from search.estimates.contract import Estimator, Floats, History, New, Target
from search.estimates.features import Ridge
from search.estimates.irt import Documents, Irt, fit_abilities, fit_documents
from search.estimates.plain import Difference, StratifiedMean
from search.estimates.ridge import fit_ridge

TASKS = np.repeat([0, 1], [120, 80])
TARGET = Target.mean(TASKS)
WAYS: dict[str, Estimator] = {
    "mean": StratifiedMean(),
    "difference": Difference(),
    "ridge": Ridge(),
    "anchors": Anchors(),
    "irt": Irt(dimensions=2),
}


def planted(candidates: int, seed: int) -> tuple[Floats, Floats]:
    """Candidates' items, right where their skill (one a task) beats the document's difficulty; and their skills."""
    rng = np.random.default_rng(seed)
    difficulty = np.random.default_rng(99).uniform(-2, 2, len(TASKS))
    skills = rng.normal(0.3, 0.5, (candidates, 2))
    noise = rng.logistic(0, 0.3, (candidates, len(TASKS)))
    return (skills[:, TASKS] + noise > difficulty).astype(float), skills


def history_of(items: Floats, coefficients: Floats | None = None, logs: Floats | None = None) -> History:
    return History(items, TARGET.value(items), TARGET, coefficients, logs)


def tau(ours: Floats, theirs: Floats) -> float:
    from scipy.stats import kendalltau

    return float(kendalltau(ours, theirs).statistic)


@pytest.mark.parametrize("shape", [(12, 30), (40, 7), (9, 9)], ids=["wide", "tall", "square"])
def test_leave_one_out_errors_are_those_of_refits_without_the_candidate(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=shape) + 3.0
    y = x[:, :3].sum(axis=1) + rng.normal(size=shape[0])
    line = fit_ridge(x, y)
    for out in range(shape[0]):
        rest = np.arange(shape[0]) != out
        again = fit_ridge(x[rest], y[rest], [line.alpha])
        assert line.left_out[out] == pytest.approx(y[out] - again.predict(x[[out]])[0], rel=1e-6)
    errors = [fit_ridge(x, y, [alpha]).error for alpha in (0.1, 10.0, 1e4)]
    assert line.error <= min(errors) and line.error == pytest.approx(np.sqrt(np.mean(line.left_out**2)))


def test_a_ridge_is_the_normal_equations() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(20, 6)), rng.normal(size=20)
    line, centred = fit_ridge(x, y, [2.5]), x - x.mean(axis=0)
    expected = np.linalg.solve(centred.T @ centred + 2.5 * np.eye(6), centred.T @ (y - y.mean()))
    np.testing.assert_allclose(line.weights, expected, rtol=1e-9)
    assert line.predict(x.mean(axis=0)[None])[0] == pytest.approx(y.mean())


def test_equal_candidates_are_estimated_as_what_they_are() -> None:
    items = np.ones((5, len(TASKS)))
    found = Ridge().fit(history_of(items), np.arange(10)).estimate(New(np.ones((1, 10))))
    assert found.mean == pytest.approx(1.0) and found.error == pytest.approx(0.0)


@pytest.mark.parametrize("way", WAYS)
def test_nobody_is_estimated_too_high_or_too_low_on_average(way: str) -> None:
    """100 new candidates, like the 60 known ones, on 30 draws of documents: errors cancel out, and are as stated."""
    past, new = planted(60, 1)[0], planted(100, 2)[0]
    model = Irt(dimensions=2, model=fit_documents(past, 2)[0])  # fitted once: it does not depend on the draw
    estimator, truth = (model if way == "irt" else WAYS[way]), TARGET.value(new)
    errors, stated = [], []
    for draw in range(30):
        seen = np.sort(np.random.default_rng(draw).permutation(len(TASKS))[:40])
        found = estimator.fit(history_of(past), seen).estimate(New(new[:, seen]))
        assert tau(found.mean, truth) > 0.4 and np.all(found.error > 0)
        errors.append(found.mean - truth)
        stated.append(found.error)
    size = np.sqrt(np.mean(np.square(stated)))
    assert abs(np.mean(errors)) < 0.4 * size
    assert 0.6 < np.sqrt(np.mean(np.square(errors))) / size < 1.7


def test_the_difference_takes_away_what_the_documents_seen_are_easier() -> None:
    past, seen = planted(60, 1)[0], np.flatnonzero(planted(60, 1)[0].mean(axis=0) > 0.6)
    new = planted(50, 2)[0]
    plain, corrected = (
        WAYS[way].fit(history_of(past), seen).estimate(New(new[:, seen])).mean for way in ("mean", "difference")
    )
    truth = TARGET.value(new)
    assert (plain - truth).mean() > 0.2 and abs((corrected - truth).mean()) < 0.02


def test_on_all_documents_the_mean_is_the_score_without_error() -> None:
    items = planted(8, 3)[0]
    found = StratifiedMean().fit(history_of(items), np.arange(len(TASKS))).estimate(New(items))
    np.testing.assert_allclose(found.mean, TARGET.value(items))
    np.testing.assert_allclose(found.error, 0.0)


def test_coefficients_that_explain_the_score_are_the_prior() -> None:
    rng, (items, skills) = np.random.default_rng(5), planted(140, 4)
    coefficients = np.concatenate([skills, rng.normal(size=(140, 4))], axis=1)
    seen, old = np.arange(0, len(TASKS), 20), slice(0, 80)
    history = history_of(items[old], coefficients[old])
    new, truth = New(items[80:, seen], coefficients[80:]), TARGET.value(items[80:])
    without, within, alone = (
        way.fit(history, seen).estimate(new) for way in (Ridge(coefficients=False), Ridge(), Ridge(items=False))
    )
    assert tau(within.mean, truth) > tau(without.mean, truth) + 0.1 and tau(alone.mean, truth) > 0.6
    assert within.error[0] < without.error[0]
    with pytest.raises(ValueError, match="lacks"):
        Ridge().fit(history, seen).estimate(New(items[80:, seen]))


def test_an_item_nobody_knows_tells_nothing() -> None:
    items = planted(50, 1)[0]
    holes = items.copy()
    holes[:, 3] = np.nan
    history = History(holes, TARGET.value(items), TARGET)
    found = Ridge().fit(history, np.arange(8)).estimate(New(items[:2, :8])).mean
    other = items[:2, :8].copy()
    other[:, 3] = 1 - other[:, 3]
    np.testing.assert_allclose(Ridge().fit(history, np.arange(8)).estimate(New(other)).mean, found)


def test_anchors_are_nested_in_tasks_and_their_weights_are_shares() -> None:
    items = planted(60, 1)[0]
    history = history_of(items)
    chosen = choose_anchors(history, 30, seed=4)
    assert len(set(chosen.tolist())) == 30 and np.bincount(TASKS[chosen]).tolist() == [18, 12]
    np.testing.assert_array_equal(chosen, choose_anchors(history, 30, seed=4))
    fitted = Anchors().fit(history, chosen)
    np.testing.assert_allclose(fitted.weights.sum(axis=0), 1.0)
    assert np.all(fitted.weights.sum(axis=1) > 0), "every anchor stands at least for itself"
    rights = fitted.estimate(New(np.ones((1, 30)))).mean - fitted.estimate(New(np.zeros((1, 30)))).mean
    assert rights == pytest.approx(1.0)


def test_clusters_that_lie_apart_are_found() -> None:
    rng = np.random.default_rng(0)
    points = np.concatenate([rng.normal(at, 0.1, (20, 2)) for at in (-5.0, 0.0, 5.0)])
    centres = k_means(points, 3, np.random.default_rng(1))
    assert sorted(centres[:, 0].round()) == [-5.0, 0.0, 5.0]
    assert len(k_means(np.zeros((4, 2)), 9, rng)) == 4


def test_item_response_theory_finds_the_order_of_planted_abilities() -> None:
    rng = np.random.default_rng(3)
    planted_documents = Documents(rng.uniform(0.8, 2.0, (150, 1)), rng.normal(0, 1, 150))
    abilities = rng.normal(size=(70, 1))
    items = (rng.random((70, 150)) < planted_documents.chances(abilities)).astype(float)
    found, own = fit_documents(items[:50], dimensions=1)
    assert abs(tau(own[:, 0], abilities[:50, 0])) > 0.75
    assert np.corrcoef(found.difficulty, planted_documents.difficulty)[0, 1] > 0.85
    seen = np.arange(0, 150, 3)
    new = fit_abilities(planted_documents, items[50:][:, seen], seen)
    assert tau(new[:, 0], abilities[50:, 0]) > 0.6


def test_an_older_studys_documents_serve_a_study_without_a_history() -> None:
    older, few, new = planted(80, 1)[0], planted(5, 7)[0], planted(60, 2)[0]
    model, seen = fit_documents(older, dimensions=2)[0], np.arange(0, len(TASKS), 5)
    found = Irt(model=model, mixed=False).fit(history_of(few), seen).estimate(New(new[:, seen]))
    assert tau(found.mean, TARGET.value(new)) > 0.6


@pytest.mark.parametrize("way", ["mean", "difference", "ridge", "anchors"])
def test_the_worst_task_is_estimated_as_the_worst_task(way: str) -> None:
    """The objective is what the target says, here the lower of two tasks that differ."""

    def lower(values: Floats) -> Floats:
        return np.asarray(np.min(values, axis=-1))

    target = Target(TASKS, TARGET.shares, lower)

    def items(candidates: int, seed: int) -> Floats:
        found = planted(candidates, seed)[0]
        found[:, TASKS == 1] *= np.random.default_rng(seed).random((candidates, 80)) < 0.6
        return found

    past, new, seen = items(60, 1), items(60, 2), np.arange(0, len(TASKS), 4)
    history = History(past, target.value(past), target)
    found = WAYS[way].fit(history, seen).estimate(New(new[:, seen]))
    assert abs((found.mean - target.value(new)).mean()) < 0.05
    assert target.slopes(np.array([0.7, 0.3])) == pytest.approx([0.0, 1.0])


def test_a_task_without_a_document_seen_is_as_it_usually_is() -> None:
    items = planted(60, 1)[0]
    seen: Sequence[int] = np.flatnonzero(TASKS == 0)[:30].tolist()
    for way in (StratifiedMean(), Anchors()):
        found = way.fit(history_of(items), np.array(seen)).estimate(New(items[:, seen]))
        assert np.all(np.isfinite(found.mean)) and abs(found.mean.mean() - TARGET.value(items).mean()) < 0.1
