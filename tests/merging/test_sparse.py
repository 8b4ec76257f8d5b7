"""Methods that keep a part of every delta: numbers worked by hand, the statistics of draws, what they must survive."""

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from merging.arrangement import Part
from merging.catalog import CATALOG, FAMILIES, implementation
from merging.kernel.program import Keep
from merging.layers import Place
from merging.memo import Memo
from merging.methods.sparse import kept_count
from merging.models import Stack
from merging.statistics import ModelStatistics
from tests.merging.driver import context_of, merge, parameters_of

BASE = torch.tensor([1.0, 1.0, 1.0, 1.0])
A = torch.tensor([5.0, 1.0, -1.0, 0.0])  # τ = [ 4, 0, −2, −1]
B = torch.tensor([3.0, 7.0, 2.0, 0.5])  # τ = [ 2, 6,  1, −½]
SPARSE = [row.name for row in FAMILIES["sparse"]]


def merged(
    name: str, experts: Sequence[Tensor], weights: Sequence[float], base: Tensor = BASE, **values: Any
) -> Tensor:
    parameters = {key.removesuffix("_"): value for key, value in values.items()}
    return merge(CATALOG[name], base, experts, weights, parameters)


def check(actual: Tensor, *expected: float) -> None:
    assert_close(actual, torch.tensor(expected), rtol=1e-6, atol=1e-6)


def test_ties_trims_elects_and_averages_who_agrees() -> None:
    # density ½ keeps 2 of 4: τ̂_A = [4, 0, −2, 0], τ̂_B = [2, 6, 0, 0]
    # equal weights: [(4 + 2)/2, 6/1, −2/1, 0]
    check(merged("ties", [A, B], [1.0, 1.0], density=0.5), 4.0, 7.0, -1.0, 1.0)
    # weights 1, 3: [(4 + 6)/4, 18/3, −2/1, 0]; λ = 2 doubles the update
    check(merged("ties", [A, B], [1.0, 3.0], density=0.5, lambda_=2.0), 6.0, 13.0, -3.0, 1.0)


def test_ties_weighs_the_votes() -> None:
    # density 1, element 2: −2 against +1. Weights 1, 1 elect −; weights 1, 3 elect + (−2 + 3)
    check(merged("ties", [A, B], [1.0, 1.0], density=1.0), 4.0, 7.0, -1.0, 0.25)  # last: (−1 − ½)/2
    check(merged("ties", [A, B], [1.0, 3.0], density=1.0), 3.5, 7.0, 2.0, 0.375)  # last: (−1 − 1½)/4


@pytest.mark.parametrize(("left", "right", "wins"), [(3.0, -2.0, 3.0), (2.0, -3.0, -3.0), (2.0, -2.0, 2.0)])
def test_ties_of_two_opposite_deltas_keeps_the_larger(left: float, right: float, wins: float) -> None:
    zero = torch.zeros(1)
    check(merged("ties", [zero + left, zero + right], [1.0, 1.0], zero, density=1.0), wins)  # a tie elects +


@pytest.mark.parametrize("name", ["ties", "dare_ties"])
def test_an_expert_of_weight_0_does_not_vote(name: str) -> None:
    loud = BASE - 1000.0
    check(merged(name, [loud, B], [0.0, 1.0], density=1.0), *B.tolist())


def test_breadcrumbs_drops_the_largest_and_the_small() -> None:
    base, expert = torch.zeros(5), torch.tensor([5.0, -4.0, 3.0, -2.0, 1.0])
    # γ = 0.2 drops the 5, density 0.4 keeps two below it
    check(merged("breadcrumbs", [expert], [1.0], base, density=0.4, gamma=0.2), 0.0, -4.0, 3.0, 0.0, 0.0)
    check(merged("breadcrumbs", [expert], [0.5], base, density=0.4, gamma=0.0), 2.5, -2.0, 0.0, 0.0, 0.0)
    # both: 1·[0, −4, 3, 0, 0] + 2·[0, 0, 0, 0, 1] with ranks of its own; λ = ½
    other = torch.tensor([0.0, 0.5, 0.25, 9.0, 1.0])  # drops 9, keeps 1 and 0.5
    update = merged("breadcrumbs", [expert, other], [1.0, 2.0], base, density=0.4, gamma=0.2, lambda_=0.5)
    check(update, 0.0, -1.5, 1.5, 0.0, 1.0)


def test_dare_keeps_at_random_and_divides_by_the_density() -> None:
    expert = BASE + 1.0
    update = merged("dare", [expert], [0.5], density=0.25) - BASE
    assert set(update.tolist()) <= {0.0, 2.0}  # ½ · 1 / 0.25


def test_dare_ties_sums_the_kept_that_agree() -> None:
    # density 1 keeps all; weights 1, 1: [4 + 2, 6, −2 (−2 against 1), −1½]; no mean
    check(merged("dare_ties", [A, B], [1.0, 1.0], density=1.0), 7.0, 7.0, -1.0, -0.5)
    zero = torch.zeros(1000)
    update = merged("dare_ties", [zero + 1.0, zero - 2.0], [1.0, 1.0], zero, density=0.5)
    # −2/½ where B is kept (it outvotes A), +1/½ where A alone is, else 0
    assert set(update.tolist()) == {-4.0, 2.0, 0.0}
    shares = [(update == value).float().mean().item() for value in (-4.0, 2.0, 0.0)]
    assert shares == pytest.approx([0.5, 0.25, 0.25], abs=0.06)


def test_dare_is_unbiased() -> None:
    generator, seeds, density = torch.Generator().manual_seed(5), 400, 0.3
    expert = BASE.repeat(16) + torch.randn(64, generator=generator)
    delta, total = expert - BASE.repeat(16), torch.zeros(64)
    for seed in range(seeds):
        total += merge(
            CATALOG["dare"], BASE.repeat(16), [expert], [1.0], {"density": density}, seed=seed
        ) - BASE.repeat(16)
    error = (total / seeds - delta).abs()
    sigma = delta.abs() * math.sqrt((1 - density) / density / seeds)  # of Bernoulli(p)·τ/p over the seeds
    assert (error < 4 * sigma + 1e-5).all()


@pytest.mark.parametrize("name", SPARSE)
def test_full_density_is_no_operation_to_the_bit(name: str) -> None:
    expert = BASE + torch.randn(4, generator=torch.Generator().manual_seed(0))
    values = {"density": 1.0, "gamma": 0.0} if name.startswith("breadcrumbs") else {"density": 1.0}
    out = merge(CATALOG[name], BASE, [expert], [1.0], values)
    assert torch.equal(out, BASE + (expert - BASE))


@pytest.mark.parametrize("name", SPARSE)
@pytest.mark.parametrize("shape", [(), (1,), (5, 1), (1, 5)])
@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_tiny_tensors_and_deltas_of_zero_survive_every_density(name: str, shape: tuple[int, ...], scale: float) -> None:
    base = torch.ones(shape)
    experts = [base + scale * i for i in (1, -2)]
    for density in (1e-6, 0.5, 1.0):
        out = merged(name, experts, [1.0, 1.0], base, density=density)
        assert out.shape == shape and out.isfinite().all() and (scale or torch.equal(out, base))


def test_breadcrumbs_ties_elects_among_what_is_left() -> None:
    base, first, second = torch.zeros(3), torch.tensor([9.0, 4.0, 1.0]), torch.tensor([0.0, -3.0, -8.0])
    # γ drops 9 and −8, density keeps 4 and −3 of them: 4 outvotes −3
    update = merged("breadcrumbs_ties", [first, second], [1.0, 1.0], base, density=0.34, gamma=0.34)
    check(update, 0.0, 4.0, 0.0)
    check(merged("breadcrumbs_ties", [first, second], [0.5, 1.0], base, density=0.34, gamma=0.34), 0.0, -3.0, 0.0)


def test_localize_and_stitch_averages_where_regions_overlap() -> None:
    # the two largest of each: τ̂_A = [4, 0, −2, 0], τ̂_B = [2, 6, 0, 0]; no election, weights within the overlap
    check(merged("localize_stitch", [A, B], [1.0, 1.0], density=0.5), 1 + 3.0, 1 + 6.0, 1 - 2.0, 1.0)
    check(merged("localize_stitch", [A, B], [1.0, 3.0], density=0.5), 1 + 2.5, 1 + 6.0, 1 - 2.0, 1.0)


def test_composable_fine_tunes_add_up() -> None:
    check(merged("composable_sft", [A, B], [1.0, 1.0], density=0.5), 1 + 6.0, 1 + 6.0, 1 - 2.0, 1.0)
    check(merged("composable_sft", [A, B], [1.0, 0.5], density=0.25), 1 + 4.0, 1 + 3.0, 1.0, 1.0)


def test_ranks_are_taken_within_tensor_row_or_model() -> None:
    base, expert = torch.zeros(2, 4), torch.tensor([[8.0, 7.0, 6.0, 5.0], [1.0, 2.0, 3.0, 4.0]])
    whole = merged("ties", [expert], [1.0], base, density=0.5)
    assert whole.tolist() == [[8, 7, 6, 5], [0, 0, 0, 0]]
    rows = merged("ties", [expert], [1.0], base, density=0.5, scope="row")
    assert rows.tolist() == [[8, 7, 0, 0], [0, 0, 3, 4]]


def test_within_the_model_a_tensor_of_small_deltas_is_left_alone() -> None:
    small, large = torch.full((8,), 0.001), torch.arange(1.0, 9.0)
    tensors = {"small": small, "large": large}
    parts = [Part(name, Place(0, "other"), name, (name,)) for name in tensors]
    models = ModelStatistics(lambda part: Stack(torch.zeros(8), [tensors[part.base]]), parts, Memo(0))
    for name, kept in (("small", 0), ("large", 4)):
        figures = models.of(next(part for part in parts if part.base == name))
        assert figures.population("model") == 16
        out = merge(
            CATALOG["ties"],
            torch.zeros(8),
            [tensors[name]],
            [1.0],
            {"density": 0.25, "scope": "model"},
            figures=figures,
        )
        assert int(out.count_nonzero()) == kept


@pytest.mark.parametrize("name", ["della", "della_linear"])
def test_della_keeps_large_elements_more_often_and_is_unbiased(name: str) -> None:
    delta, seeds = torch.tensor([[0.5, -1.0, 2.0, -4.0]]), 2000
    base = torch.zeros(1, 4)
    kept, total = torch.zeros(1, 4), torch.zeros(1, 4)
    for seed in range(seeds):
        update = merge(CATALOG[name], base, [delta], [1.0], {"density": 0.5, "epsilon": 0.6, "lambda": 1.0}, seed=seed)
        kept += update != 0
        total += update if name == "della_linear" else torch.zeros(1, 4)
    # ε = 0.6 · 0.5 = 0.3: p = 0.2, 0.4, 0.6, 0.8 by rank
    assert (kept / seeds).flatten().tolist() == pytest.approx([0.2, 0.4, 0.6, 0.8], abs=0.05)
    if name == "della_linear":
        assert (total / seeds).flatten().tolist() == pytest.approx(delta.flatten().tolist(), rel=0.15)


def test_della_without_a_band_of_probabilities_is_dare() -> None:
    expert = BASE + torch.randn(4, generator=torch.Generator().manual_seed(0))
    dare = merged("dare", [expert], [0.7], density=0.5)
    assert torch.equal(merged("della_linear", [expert], [0.7], density=0.5, epsilon=0.0), dare)


@pytest.mark.parametrize("name", ["dare", "dare_ties", "della", "della_linear"])
def test_rescaling_is_by_the_probability_to_the_norm_or_not_at_all(name: str) -> None:
    delta = torch.randn(64, generator=torch.Generator().manual_seed(2))
    base = torch.zeros(64)

    def update(rescale: str) -> Tensor:
        return merged(name, [delta], [1.0], base, density=0.5, rescale=rescale, **extra)

    extra: dict[str, Any] = {"epsilon": 0.0, "normalize": False} if name.startswith("della") else {}
    bare, inverse, l1 = update("none"), update("inverse"), update("l1")
    kept = bare != 0
    assert 0 < int(kept.count_nonzero()) < 64 and torch.equal(bare[kept], delta[kept])
    assert_close(inverse, 2 * bare)
    assert_close(l1.abs().sum(), delta.abs().sum())
    assert torch.equal(l1 != 0, kept)


def test_numbers_may_differ_by_expert() -> None:
    update = merged("ties", [A, B], [1.0, 1.0], density=(0.25, 0.5)) - BASE
    check(update, 3.0, 6.0, 0.0, 0.0)  # τ̂_A = [4, 0, 0, 0], τ̂_B = [2, 6, 0, 0]


@pytest.mark.parametrize("name", [n for n in SPARSE if CATALOG[n].parameter("normalize")])
def test_normalising_divides_by_the_weights_that_take_part(name: str) -> None:
    weights, values = [1.0, 3.0], {"density": 1.0} | ({"gamma": 0.0} if name.startswith("breadcrumbs") else {})
    base = torch.zeros(2)
    experts = [torch.tensor([4.0, 1.0]), torch.tensor([8.0, -1.0])]
    found = merged(name, experts, weights, base, **values, normalize=True)
    elects = name in ("ties", "dare_ties", "della", "breadcrumbs_ties")
    check(found, (4 + 24) / 4, -1.0 if elects else (1 - 3) / 4)  # −3 outvotes 1: its weight alone divides


@pytest.mark.parametrize(
    ("share", "size", "count"), [(0.5, 4, 2), (1e-6, 4, 1), (1.0, 4, 4), (0.3, 1, 1), (0.99, 3, 2)]
)
def test_a_share_keeps_at_least_one(share: float, size: int, count: int) -> None:
    assert kept_count(share, size) == count


def test_a_program_without_a_cut_costs_no_look_at_the_numbers() -> None:
    program = implementation(CATALOG["ties"]).program(
        [1.0], parameters_of(CATALOG["ties"], {"density": 1.0}), context_of(BASE, [A])
    )
    assert program.keeps == (program.keeps[0],) and isinstance(program.keeps[0], Keep)
    assert program.keeps[0].above is None and program.keeps[0].chance is None


@pytest.mark.parametrize("name", ["della", "della_linear"])
def test_at_its_widest_della_divides_by_no_vanishing_probability(name: str) -> None:
    delta = torch.full((512, 2048), 1e-6)
    delta[:, 0] = 1e-9  # the smallest of each row: rank 0
    for seed in range(3):
        update = merge(
            CATALOG[name], torch.zeros(512, 2048), [delta], [1.0], {"epsilon": 1.0, "density": 0.5}, seed=seed
        )
        assert float(update.abs().max()) < 1e-2
