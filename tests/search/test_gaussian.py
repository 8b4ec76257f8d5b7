"""The Gaussian process: against closed forms, finite differences and sampling."""

from collections.abc import Callable

import numpy as np
import pytest

from merging.profile import Profile
from search.gaussian.encoding import Encoding
from search.gaussian.fit import Prior, fit, loss_of
from search.gaussian.kernel import Floats, Kernel, matern
from search.gaussian.observed import MOST, Known, chosen, fewer
from search.gaussian.prior import by_layer, lengths
from search.gaussian.process import Process
from search.gaussian.scaling import warped
from search.gaussian.terms import HypervolumeImprovement, Improvement, Met, Term, log_gain
from search.gaussian.variants import drawn
from search.hypervolume import hypervolume
from search.space import dimensions
from tests.search.factories import scored, space_of

SCALES = np.array([0.5, 1.0, 2.0])


def random(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def kernel(smooth: float = 1.3, slope: float = 0.4) -> Kernel:
    return Kernel(SCALES, smooth, slope, np.array([6.0, 3.0, 3.0]))


def process(outputs: int = 1, seed: int = 0) -> Process:
    draw = random(seed)
    points = draw.uniform(-0.5, 0.5, (12, 3))
    return Process(kernel(), points, draw.standard_normal((12, outputs)), np.full(12, 0.05))


def differences(f: Callable[[Floats], float], at: Floats, step: float = 1e-5) -> Floats:
    """The gradient by central differences."""
    units = np.eye(len(at)) * step
    return np.array([(f(at + unit) - f(at - unit)) / (2 * step) for unit in units])


def test_one_observation_has_the_posterior_of_the_textbook() -> None:
    one, two = np.array([[0.1, 0.2, -0.3]]), np.array([[0.3, -0.1, 0.4]])
    plain = kernel(smooth=1.5, slope=0.0)
    belief = Process(plain, one, np.array([[2.0]]), np.array([0.5])).at(two)
    distance = np.sqrt((((one - two) / SCALES) ** 2).sum())
    across = 1.5 * (1 + 5**0.5 * distance + 5 / 3 * distance**2) * np.exp(-(5**0.5) * distance)
    assert belief.mean[0, 0] == pytest.approx(across / (1.5 + 0.5) * 2.0)
    assert belief.deviation[0] == pytest.approx(np.sqrt(1.5 - across**2 / 2.0))


def test_the_straight_line_alone_is_ridge_regression() -> None:
    draw = random()
    points, noise = draw.uniform(-0.5, 0.5, (20, 3)), np.full(20, 0.1)
    values, new = points @ np.array([1.0, -2.0, 0.5]), draw.uniform(-0.5, 0.5, (5, 3))
    line = kernel(smooth=1e-12)
    found = Process(line, points, values[:, None], noise).mean(new)[:, 0]
    penalty = np.diag(0.1 / (line.slope * line.shares))
    coefficients = np.linalg.solve(points.T @ points + penalty, points.T @ values)
    assert found == pytest.approx(new @ coefficients, abs=1e-8)


def test_an_observation_of_more_noise_moves_the_belief_less() -> None:
    here, noise = np.array([[0.1, 0.0, 0.0], [-0.1, 0.0, 0.0]]), np.array([0.01, 1.0])
    means = [Process(kernel(slope=0.0), here, values, noise).mean(np.zeros((1, 3)))[0, 0] for values in
             (np.array([[1.0], [0.0]]), np.array([[0.0], [1.0]]))]  # fmt: skip
    assert means[0] > 5 * means[1] > 0


def test_the_fit_s_gradient_is_that_of_its_loss() -> None:
    draw, prior = random(), Prior(SCALES)
    points, missing = draw.uniform(-0.5, 0.5, (15, 3)), draw.choice([0.0, 3.0], 15)
    loss = loss_of(prior, points, draw.standard_normal(15), missing)
    at = prior.centre + draw.standard_normal(7) * 0.5
    assert loss(at)[1] == pytest.approx(differences(lambda logs: loss(logs)[0], at), rel=1e-4, abs=1e-5)


def test_the_fit_finds_which_coordinate_matters_and_which_trials_are_noisy() -> None:
    draw = random()
    points = draw.uniform(-0.5, 0.5, (120, 3))
    truth, missing = np.sin(9.0 * points[:, 1]), np.repeat([0.0, 3.0], 60)
    values = truth + draw.standard_normal(120) * np.sqrt(missing * 0.1)
    found = fit(Prior(np.ones(3)), points, values, missing)
    assert found.kernel.scales[1] < 0.5 * min(found.kernel.scales[[0, 2]])
    assert found.nugget < 0.02 and 0.03 < found.documents < 0.3


TERMS: dict[str, Callable[[], Term]] = {
    "improvement": lambda: Improvement([process()], [1.0], 1.0),
    "improvement of a sum": lambda: Improvement([process(), process(seed=1)], [0.3, 0.7], 0.5),
    "constraints": lambda: Met(process(2), np.array([0.3, -0.8])),
    "hypervolume of 2": lambda: HypervolumeImprovement(
        [process(), process(seed=1)], np.array([[1.0, 0.0], [0.2, 0.7]]), np.array([-0.5, -0.2])
    ),
    "hypervolume of 3": lambda: HypervolumeImprovement(
        [process(seed=seed) for seed in range(3)], np.array([[1.0, 0.0, 0.3], [0.2, 0.7, 0.1]]), np.full(3, -0.5)
    ),
}


@pytest.mark.parametrize("name", TERMS)
def test_a_term_s_gradient_is_that_of_its_logarithm(name: str) -> None:
    term = TERMS[name]()
    points = random(7).uniform(-0.5, 0.5, (4, 3))
    log, slopes = term.climbed(points)
    assert log == pytest.approx(term.log(points), rel=1e-6)
    for point, slope in zip(points, slopes, strict=True):
        assert slope == pytest.approx(differences(lambda at: float(term.log(at[None])[0]), point), rel=1e-3, abs=1e-5)


def test_the_logarithm_of_the_gain_is_right_where_a_float_holds_it_and_smooth_beyond() -> None:
    z = np.linspace(-5.0, 6.0, 200)
    grid = np.linspace(0.0, 14.0, 200_001)
    direct = [np.trapezoid(grid * np.exp(-0.5 * (grid - one) ** 2) / np.sqrt(2 * np.pi), grid) for one in z]
    assert log_gain(z) == pytest.approx(np.log(direct), abs=1e-6)
    far = -np.logspace(1.0, 8.0, 400)
    steps = np.diff(log_gain(far) + 0.5 * far**2 + 2.0 * np.log(-far))  # goes to a constant
    assert np.isfinite(log_gain(far)).all() and (np.diff(log_gain(far)) < 0).all()
    assert np.abs(steps[:150]).max() < 0.01 and abs(log_gain(np.array([-1e3]))[0] + 5e5 + 0.919 + 13.816) < 0.01


@pytest.mark.parametrize("objectives", [2, 3])
def test_the_expected_hypervolume_is_the_mean_of_sampled_ones(objectives: int) -> None:
    draw, point = random(3), np.array([[0.1, -0.2, 0.3]])
    processes = [process(seed=seed) for seed in range(objectives)]
    edge, reference = draw.uniform(0.0, 1.0, (4, objectives)), np.full(objectives, -0.3)
    expected = np.exp(HypervolumeImprovement(processes, edge, reference).log(point)[0])
    beliefs = [p.at(point) for p in processes]
    sampled = np.stack([b.mean[0, 0] + b.deviation[0] * draw.standard_normal(4000) for b in beliefs], axis=1)
    before = hypervolume(edge, reference)
    gains = [hypervolume(np.concatenate([edge, one[None]]), reference) - before for one in sampled]
    assert abs(np.mean(gains) - expected) < 4 * np.std(gains) / np.sqrt(4000)


def test_layers_that_the_experts_changed_most_have_the_shortest_lengths() -> None:
    profile = Profile(inner=tuple(((float(layer**2),),) for layer in range(20)), base=(1.0,) * 20)
    found = by_layer(profile)
    assert found[-3:] == (0.5,) * 3 and found[-8:-3] == (1.0,) * 5 and found[:6] == (5.0,) * 6
    assert by_layer(Profile(inner=(((1.0,),),) * 4, base=(1.0,) * 4)) == (1.0,) * 4
    space = space_of(space={"layers": "each"})
    four = Profile(inner=(((0.0,),), ((0.0,),), ((0.0,),), ((9.0,),)), base=(1.0,) * 4)
    by_name = dict(zip((d.name for d in dimensions(space)), lengths(space, dimensions(space), four), strict=True))
    assert by_name["task_arithmetic.weight[a]@layer3"] < by_name["task_arithmetic.weight[a]@layer0"]


def test_every_point_of_a_mixed_space_comes_back_from_its_vector() -> None:
    methods = ["task_arithmetic", "ties", "layer_swap", "breadcrumbs"]
    space = space_of(space={"methods": methods, "choose": "per_group", "layers": 2})
    encoding, draw = Encoding(space), random()
    for _ in range(30):
        place = drawn(space, encoding, draw)
        again = encoding.place(encoding.values(place))
        assert np.allclose(again.vector, place.vector) and (again.active == place.active).all()
        assert again.choices == place.choices and encoding.proposal(place).params == encoding.values(place)
        assert not place.vector[~place.active & np.array([choice is None for _, choice in encoding.columns])].any()


def known(number: int, value: float, at: float = 0.0, pruned: bool = False, documents: int | None = None) -> Known:
    encoding = Encoding(space_of())
    place = encoding.place({d.name: 0.5 + at for d, _ in encoding.columns})
    score = scored(value).scores[0].model_copy(update={"documents": tuple(range(documents or 0))})
    return Known(number, place, (value,), (), pruned, None if documents is None else lambda: (score,))


def test_missing_documents_count_as_sampling_does() -> None:
    whole, quarter = known(0, 0.5, documents=400), known(1, 0.5, pruned=True, documents=100)
    unknown, nothing = known(2, 0.5, pruned=True), known(3, 0.5, pruned=True, documents=0)
    assert fewer([whole, quarter, unknown]).tolist() == [0.0, 3.0, 3.0]
    assert fewer([quarter]).tolist() == [3.0], "no trial was scored in full: all stopped ones count alike"
    assert fewer([whole, nothing])[1] > 3.0


def test_of_many_trials_the_best_the_latest_and_the_nearest_are_kept() -> None:
    many = [known(i, -abs(i - 500.0), at=0.5 - i / 1000) for i in range(1000)]
    found = {k.number for k in chosen(many, np.ones(3))}
    assert len(found) == MOST and set(range(450, 550)) <= found and set(range(940, 1000)) <= found
    assert 0 not in found and chosen(many[:MOST], np.ones(3)) == many[:MOST]


def test_the_order_of_values_outlives_their_scaling_and_the_worst_weigh_little() -> None:
    values = np.array([-1000.0, 0.4, 0.41, 0.5, 0.52, 0.6])
    found = warped(values)(values)
    assert (np.diff(found) > 0).all() and found[0] > -15.0
    assert found[-1] - found[-2] == pytest.approx(0.08 / 0.02 * (found[-2] - found[-3]))


def test_the_covariance_is_1_at_the_same_place_and_falls() -> None:
    assert matern(np.array([0.0]))[0] == 1.0
    assert (np.diff(matern(np.linspace(0.0, 9.0, 50))) < 0).all()
