"""The methods on matrices: numbers by hand, planted structure, plain versions beside them, what they must survive."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from merging.catalog import CATALOG, implementation
from merging.linalg import polar, svd
from merging.methods.contract import Role, TensorContext

NAMES = ["tsv_m", "iso_c", "iso_cts", "wudi"]
EVERY = pytest.mark.parametrize("name", NAMES)


def update(
    name: str,
    deltas: Sequence[Tensor],
    weights: Sequence[float] = (),
    role: Role = "matrix",
    transposed: bool = False,
    **parameters: Any,
) -> Tensor:
    """What the method adds to the base, λ = 1 unless given; `prepare` sees the prepare-stage parameters alone."""
    row, code, stacked = CATALOG[name], implementation(CATALOG[name]), torch.stack([d.float() for d in deltas])
    nothing: Any = None  # these methods ask for no statistics
    names = tuple("abcdefghi"[: len(deltas)])
    context = TensorContext("w", 0, names, nothing, tuple(stacked.shape[1:]), role, transposed)
    asked = {key.removesuffix("_"): value for key, value in parameters.items()}
    values = {p.name: p.default for p in row.parameters} | {"lambda": 1.0} | asked
    assert set(values) == {p.name for p in row.parameters}
    early = {p.name: values[p.name] for p in row.parameters if p.stage == "prepare"}
    prepared = code.prepare(stacked, early, context)
    joined: Tensor = code.combine(stacked, prepared, torch.tensor(weights or [1.0] * len(deltas)), values)
    assert joined.dtype == torch.float32 and joined.shape == stacked.shape[1:] and joined.is_contiguous()
    return joined


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def experts(count: int, *shape: int) -> list[Tensor]:
    return [numbers(*shape, seed=seed) for seed in range(count)]


def orthogonal_tasks(count: int, rank: int, out: int, inputs: int) -> list[Tensor]:
    """Deltas of that rank whose row spaces and column spaces are orthogonal to one another's."""
    left = torch.linalg.qr(numbers(out, count * rank).double()).Q
    right = torch.linalg.qr(numbers(inputs, count * rank, seed=1).double()).Q
    parts = [slice(i * rank, (i + 1) * rank) for i in range(count)]
    strength = torch.linspace(3.0, 1.0, rank).double()
    return [((left[:, part] * strength) @ right[:, part].mT).float() for part in parts]


def test_tsv_m_whitens_two_directions_at_60_degrees() -> None:
    # u = e₁ and (½, √¾), v = e₁ and e₂, one direction each: the orthogonal pair nearest to u lies at −15° and 75°
    first, second = torch.diag(torch.tensor([2.0, 0.0])), torch.tensor([[0.0, 0.5], [0.0, 0.75**0.5]]) * 3.0
    angles = torch.tensor([-15.0, 75.0]).deg2rad()
    left = torch.stack([angles.cos(), angles.sin()])
    assert_close(update("tsv_m", [first, second]), left @ torch.diag(torch.tensor([2.0, 3.0])))
    signed = update("tsv_m", [first, second], [0.5, -1.0], lambda_=2.0)
    assert_close(signed, left @ torch.diag(torch.tensor([2.0, -6.0])))


def test_tsv_m_keeps_each_experts_share_of_the_directions() -> None:
    deltas = [torch.diag(torch.tensor([4.0, 3.0, 2.0, 1.0])), torch.diag(torch.tensor([0.0, 0.0, 9.0, 8.0]))]
    assert_close(update("tsv_m", deltas), torch.diag(torch.tensor([4.0, 3.0, 9.0, 8.0])))
    assert_close(update("tsv_m", deltas, rank_share=0.5), torch.diag(torch.tensor([4.0, 0.0, 9.0, 0.0])))


@pytest.mark.parametrize("rank", [1, 5])
def test_tsv_m_adds_orthogonal_low_rank_tasks_up_exactly(rank: int) -> None:
    deltas = orthogonal_tasks(3, rank, 40, 32)  # r/T = 10 directions each, most of them null
    total = torch.stack(deltas).sum(0)
    assert (update("tsv_m", deltas) - total).norm() < 2e-6 * total.norm()
    weighted = update("tsv_m", deltas, [1.0, 0.0, 2.0])
    assert_close(weighted, deltas[0] + 2 * deltas[2], rtol=1e-5, atol=1e-6)
    displaced = update("tsv_m", deltas, floor=1e-9)  # by null directions
    assert (displaced - total).norm() > 0.1 * total.norm()


@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (5, 5), (2, 9)])
def test_tsv_m_and_wudi_give_one_expert_back(shape: tuple[int, int]) -> None:
    expert = numbers(*shape)
    assert_close(update("tsv_m", [expert]), expert)
    assert_close(update("wudi", [expert]), expert)
    assert_close(update("wudi", [expert] * 3), expert)


def test_tsv_m_gives_equal_experts_back_if_their_rank_has_room() -> None:
    expert = orthogonal_tasks(1, 4, 12, 12)[0]
    assert_close(update("tsv_m", [expert] * 3), expert)


def test_tsv_m_takes_more_experts_than_directions() -> None:
    expert = torch.outer(numbers(3), numbers(2, seed=9))
    assert_close(update("tsv_m", [expert] * 5), expert)


def test_iso_c_flattens_the_spectrum_of_the_sum() -> None:
    # Σ = diag(3, −1): mean 2, signs stay. A null direction takes no part: diag(3, −1, 0) has the same mean
    assert_close(update("iso_c", [torch.diag(torch.tensor([3.0, -1.0]))]), torch.diag(torch.tensor([2.0, -2.0])))
    parts = [torch.diag(torch.tensor([3.0, 0.0, 0.0])), torch.diag(torch.tensor([0.0, -1.0, 0.0]))]
    assert_close(update("iso_c", parts, lambda_=0.5), torch.diag(torch.tensor([1.0, -1.0, 0.0])))


@pytest.mark.parametrize("shape", [(12, 8), (8, 12)])
def test_iso_c_keeps_the_nuclear_norm_of_the_sum(shape: tuple[int, int]) -> None:
    deltas = experts(3, *shape)
    flat, total = update("iso_c", deltas), torch.stack(deltas).sum(0)
    assert_close(torch.linalg.matrix_norm(flat, "nuc"), torch.linalg.matrix_norm(total, "nuc"))
    assert flat.norm() < total.norm()


def test_iso_c_of_deltas_that_cancel_is_nothing() -> None:
    a, b = experts(2, 5, 4)
    assert not update("iso_c", [a, b, -(a + b)]).any()  # the sum is rounding noise of full rank


def plain_iso_cts(deltas: Sequence[Tensor], common: float) -> Tensor:
    """Iso-CTS as the paper's own code does it for deltas of full rank, without a floor."""
    count, size = len(deltas), min(deltas[0].shape)
    special = round((size - int(size * common)) / count) * count
    shared, each = size - special, special // count
    u, s, v = torch.linalg.svd(torch.stack(list(deltas)).double().sum(0), full_matrices=False)
    us, ss, vs = [u[:, :shared]], [s[:shared]], [v[:shared]]
    for delta in deltas:
        outside = delta.double() - us[0] @ us[0].T @ delta.double()
        a, b, c = torch.linalg.svd(outside, full_matrices=False)
        us, ss, vs = [*us, a[:, :each]], [*ss, b[:each]], [*vs, c[:each]]
    a, _, b = torch.linalg.svd(torch.cat(us, 1), full_matrices=False)
    c, _, d = torch.linalg.svd(torch.cat(vs, 0), full_matrices=False)
    return (torch.cat(ss).mean() * (a @ b) @ (c @ d)).float()


@pytest.mark.parametrize("common", [0.5, 0.8, 0.95])
@pytest.mark.parametrize(("count", "shape"), [(1, (10, 10)), (3, (20, 16)), (4, (16, 23))])
def test_iso_cts_agrees_with_a_plain_version(count: int, shape: tuple[int, int], common: float) -> None:
    deltas = experts(count, *shape)
    assert_close(update("iso_cts", deltas, common=common), plain_iso_cts(deltas, common))


def test_iso_cts_of_common_directions_alone_is_iso_c() -> None:
    deltas = experts(3, 9, 7)
    assert_close(update("iso_cts", deltas, common=1.0), update("iso_c", deltas))
    assert_close(update("iso_cts", experts(9, 5, 4), common=0.5), update("iso_c", experts(9, 5, 4)))  # T > r: k = r


@pytest.mark.parametrize("common", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_iso_cts_fits_its_directions_into_any_matrix(count: int, common: float) -> None:
    for shape in ((3, 3), (2, 5), (7, 4)):
        strengths = torch.linalg.svdvals(update("iso_cts", experts(count, *shape), common=common))
        assert_close(strengths, strengths.mean().expand(min(shape)))  # as many directions as there are, all alike


def test_iso_cts_gives_no_strength_to_rounding_noise() -> None:
    inside = orthogonal_tasks(2, 2, 12, 8)  # the first 4 of 8 directions are common: nothing lies outside of them
    assert_close(update("iso_cts", inside, common=0.5), update("iso_c", inside))
    a, b = experts(2, 9, 6)
    cancelling = [a, b, -(a + b)]  # nothing is common; one of 6 directions is each expert's own
    own = [svd(d, rank=1) for d in cancelling]
    left, right = polar(torch.cat([f.left for f in own], 1)), polar(torch.cat([f.right for f in own]))
    flat = torch.cat([f.values for f in own]).mean() * left @ right
    assert_close(update("iso_cts", cancelling, common=0.5), flat.float())


def loss(merged: Tensor, deltas: Sequence[Tensor]) -> float:
    """What WUDI minimises, from its definition."""
    pairs = [(merged.double() - d.double(), d.double()) for d in deltas]
    return sum(float((rest @ d.mT).square().sum() / d.square().sum()) for rest, d in pairs)


@pytest.mark.parametrize("shape", [(8, 6), (6, 40)])  # the second: more inputs than rows of all deltas
def test_wudi_is_the_least_squares_fit_of_what_deltas_do_to_their_own_rows(shape: tuple[int, int]) -> None:
    deltas = [d.double() for d in experts(3, *shape)]
    rows = torch.cat([d / d.norm() for d in deltas])  # M rowsᵀ = targetsᵀ
    targets = torch.cat([d @ d.mT / d.norm() for d in deltas])
    best = torch.linalg.lstsq(rows, targets, driver="gelsd").solution.mT
    assert_close(update("wudi", deltas, ridge=1e-8), best.float(), rtol=1e-4, atol=1e-5)


def test_wudi_is_regmean_on_the_deltas_own_gram_matrices() -> None:
    deltas = [d.double() for d in experts(3, 8, 6)]
    grams = [d.mT @ d / d.square().sum() for d in deltas]
    gram, ridge = sum(grams), 0.3
    level = ridge * torch.stack(grams).sum(0).diagonal().mean() * torch.eye(6, dtype=torch.float64)
    moment = sum(d @ g for d, g in zip(deltas, grams, strict=True)) + torch.stack(deltas).mean(0) @ level
    assert_close(update("wudi", deltas, ridge=ridge), (moment @ torch.linalg.inv(gram + level)).float())


def test_wudi_by_hand() -> None:
    # One row each, a = (2, 0) and b = (1, 1): M aᵀ = 4 and M bᵀ = 2 have the exact answer (2, 0)
    deltas = [torch.tensor([[2.0, 0.0], [0.0, 0.0]]), torch.tensor([[1.0, 1.0], [0.0, 0.0]])]
    assert_close(update("wudi", deltas, ridge=1e-8), torch.tensor([[2.0, 0.0], [0.0, 0.0]]), rtol=0, atol=1e-5)
    assert_close(update("wudi", deltas, ridge=1e6, lambda_=2.0), torch.tensor([[3.0, 1.0], [0.0, 0.0]]))  # the mean


def test_wudi_in_closed_form_interferes_less_than_adam_and_adam_less_than_the_sum() -> None:
    deltas = [0.02 * d for d in experts(4, 16, 12)]
    adam = update("wudi", deltas, solver="adam")
    lowest, total = update("wudi", deltas, ridge=1e-8), torch.stack(deltas).sum(0)
    assert loss(lowest, deltas) < loss(adam, deltas) < loss(total, deltas)
    assert loss(lowest, deltas) <= loss(update("wudi", deltas), deltas) < loss(torch.stack(deltas).mean(0), deltas)
    assert_close(update("wudi", deltas, solver="adam", steps=0), total)


def test_wudis_adam_is_torchs_adam_on_the_loss_itself() -> None:
    deltas = [0.02 * d.double() for d in experts(3, 7, 5)]
    optimiser = torch.optim.Adam([point := torch.nn.Parameter(torch.stack(deltas).sum(0))], lr=1e-4)
    for _ in range(40):
        optimiser.zero_grad()
        terms = [((point - d) @ d.mT).square().sum() / d.square().sum() for d in deltas]
        torch.stack(terms).sum().backward()
        optimiser.step()
    ours = update("wudi", deltas, solver="adam", steps=40, learning_rate=1e-4)
    assert_close(ours, point.detach().float(), rtol=1e-5, atol=1e-7)


@EVERY
def test_a_transposed_matrix_gives_the_transposed_update(name: str) -> None:
    deltas = experts(3, 9, 6)
    turned = update(name, [d.T for d in deltas], transposed=True)
    assert_close(turned, update(name, deltas).T)
    alike = torch.allclose(update(name, [d.T for d in deltas]), turned, atol=1e-2)
    assert alike == (name in ("tsv_m", "iso_c"))  # the others tell inputs from outputs


@EVERY
@pytest.mark.parametrize("transposed", [False, True])
def test_a_stack_is_merged_slice_by_slice(name: str, transposed: bool) -> None:
    deltas = experts(2, 3, 6, 4)
    merged = update(name, deltas, role="stack", transposed=transposed)
    alone = [update(name, [d[i] for d in deltas], transposed=transposed) for i in range(3)]
    assert torch.equal(merged, torch.stack(alone))


@EVERY
@pytest.mark.parametrize("role", ["embedding", "vector", "other"])
def test_what_is_no_matrix_takes_the_scaled_mean(name: str, role: Role) -> None:
    for shape in ((4, 3), (5,), (), (2, 3, 4), (0, 3)):
        deltas = experts(2, *shape)
        weights = [0.5, 2.0] if name == "tsv_m" else [1.0, 1.0]
        mean = (weights[0] * deltas[0] + weights[1] * deltas[1]) / 2
        assert_close(update(name, deltas, weights, role, lambda_=3.0), 3 * mean)


@EVERY
@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (5, 1), (0, 4), (4, 0), (6, 4)])
def test_nothing_learned_adds_nothing(name: str, shape: tuple[int, int]) -> None:
    for count in (1, 3, 8):
        assert torch.equal(update(name, [torch.zeros(shape)] * count), torch.zeros(shape))


@EVERY
@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (5, 1), (2, 2)])
def test_slivers_of_matrices_merge(name: str, shape: tuple[int, int]) -> None:
    for count in (1, 2, 5):  # the last expert learned nothing
        assert torch.isfinite(update(name, [*experts(count, *shape), torch.zeros(shape)])).all()


@EVERY
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_reaches_the_result(name: str, value: float) -> None:
    deltas = experts(2, 4, 3)
    deltas[1][2, 1] = value
    assert not torch.isfinite(update(name, deltas)).all()
    if name == "tsv_m":
        assert not torch.isfinite(update(name, deltas, [1.0, 0.0])).all()


@EVERY
def test_tiny_and_huge_deltas_merge_alike(name: str) -> None:
    deltas = experts(3, 6, 5)
    for factor in (1e-15, 1e15):
        scaled = update(name, [d * factor for d in deltas]) / factor
        assert_close(scaled, update(name, deltas), rtol=1e-4, atol=1e-5)


@EVERY
@settings(max_examples=15, deadline=None, derandomize=True, database=None)
@given(st.data())
def test_order_does_not_matter_and_bits_repeat(name: str, data: st.DataObject) -> None:
    count, shape = data.draw(st.integers(1, 4)), data.draw(st.sampled_from([(6, 4), (4, 7), (5, 5), (1, 3)]))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 2**32)))
    rank = data.draw(st.integers(1, 5))
    deltas = [torch.randn(shape[0], rank, generator=generator) @ torch.randn(rank, shape[1], generator=generator)]
    deltas += [torch.randn(shape, generator=generator) for _ in range(count - 1)]
    weights = [0.3 + 0.4 * i for i in range(count)]
    order = data.draw(st.permutations(range(count)))
    merged = update(name, deltas, weights)
    assert torch.equal(update(name, deltas, weights), merged)
    permuted = update(name, [deltas[i] for i in order], [weights[i] for i in order])
    assert_close(permuted, merged, rtol=1e-4, atol=1e-5)
