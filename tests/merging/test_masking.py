"""Methods in which deltas compete: numbers by hand, planted structure, and what all of them must survive."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from merging.arrangement import Part
from merging.catalog import CATALOG, implementation
from merging.engine import Engine, MergePlan, Plan
from merging.layers import Place
from tests.merging.driver import merge, parameters_of
from tests.merging.factories import models_of
from tests.merging.updates import A, B, check, noise, update

MASKING = ["sce", "ram_plus", "magmax", "emr", "consensus", "pcb", "cabs", "sparse_soup"]
EVERY = pytest.mark.parametrize("name", [*MASKING, "ram"])


def test_magmax_takes_the_furthest_of_every_element() -> None:
    check(update("magmax", [A, B]), 4.0, 6.0, -2.0, -1.0)
    check(update("magmax", [A, B], [1.0, 3.0], lambda_=0.5), 3.0, 9.0, 1.5, -0.75)  # ½ · [6, 18, 3, −1½]


def test_emr_takes_the_furthest_of_the_elected_sign() -> None:
    check(update("emr", [A, B]), 4.0, 6.0, -2.0, -1.0)
    check(update("emr", [A, B], [1.0, 3.0]), 6.0, 18.0, 3.0, -1.5)  # the sums are [10, 18, 1, −2½]
    three = [torch.tensor([x]) for x in (3.0, -2.0, -2.0)]
    check(update("emr", three), -2.0)  # the sum −1 elects −
    check(update("magmax", three), 3.0)


@pytest.mark.parametrize("name", ["emr", "magmax"])
def test_of_opposite_equals_the_positive_one_wins_in_any_order(name: str) -> None:
    up, down = torch.tensor([2.0]), torch.tensor([-2.0])
    check(update(name, [up, down]), 2.0)
    check(update(name, [down, up]), 2.0)


def test_emr_of_one_expert_is_that_expert_to_the_bit() -> None:
    delta = noise(5, 7)
    assert torch.equal(update("emr", [delta]), delta)


def test_consensus_keeps_what_enough_experts_use() -> None:
    # λ_m = 0.4, v = [6, 6, −1, −1½]: both use elements 0 (2 > 0.4 · 4), 2 and 3; A does not use 1
    check(update("consensus", [A, B], lambda_m=0.4, k=2), 6.0, 0.0, -1.0, -1.5)
    check(update("consensus", [A, B], lambda_m=0.4, k=1, lambda_=0.5), 3.0, 3.0, -0.5, -0.75)
    check(update("consensus", [A, B], lambda_m=1.0, k=2), 0.0, 0.0, 0.0, 0.0)  # one outweighs the other
    check(update("consensus", [A, B], lambda_m=10.0, k=0), 6.0, 6.0, -1.0, -1.5)  # task arithmetic


def test_consensus_of_one_expert_masks_what_did_not_move() -> None:
    assert torch.equal(update("consensus", [A], lambda_m=1.0, k=1), A)
    check(update("consensus", [A, B], [1.0, 0.0], k=2), *A.tolist())  # k counts those that take part


def test_consensus_keeps_the_shared_part_and_drops_private_ones() -> None:
    shared, private = torch.tensor([1.0, -1.0, 0.0, 0.0, 0.0]), torch.eye(5)[2:]
    check(update("consensus", [shared + 3 * own for own in private], k=2), 3.0, -3.0, 0.0, 0.0, 0.0)


@pytest.mark.parametrize("name", ["magmax", "emr", "ram", "ram_plus"])
def test_disjoint_supports_are_recovered_whole(name: str) -> None:
    parts = noise(30) * torch.eye(3).repeat_interleave(10, dim=1)
    assert_close(update(name, list(parts)), parts.sum(0), rtol=1e-6, atol=0.0)


def test_sce_weighs_what_varies_most_by_energy() -> None:
    # variances [1, 4, ¼]: one of three is selected; energies 4 and 36; (4 · 2 + 36 · 6) / 40
    first, second = torch.tensor([4.0, 2.0, 0.0]), torch.tensor([2.0, 6.0, 1.0])
    check(update("sce", [first, second], select=0.34), 0.0, 5.6, 0.0)
    # the selection decides the weights alone: 0.1 · 4 + 0.9 · 2, and 1 from the one that has a sign
    check(update("sce", [first, second], select=0.34, mask_output=False), 2.2, 5.6, 1.0)
    check(update("sce", [first, second], select=0.34, lambda_=0.5), 0.0, 2.8, 0.0)


def test_sce_selects_a_share_of_what_varies_and_of_equal_variances_the_first() -> None:
    # variances [1, 1, ¼, 0, 0, 0]; 0.4 of three is one: energies 16 and 4
    first, second = torch.tensor([4.0, 2.0, 0.0, 1.0, 1.0, 1.0]), torch.tensor([2.0, 4.0, 1.0, 1.0, 1.0, 1.0])
    check(update("sce", [first, second], select=0.4), 3.6, *[0.0] * 5)
    check(update("sce", [first, second], select=0.67), 3.0, 3.0, *[0.0] * 4)


def test_sce_is_prepared_once_and_then_merges_the_models_themselves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, experts = noise(40, 30).bfloat16(), list(noise(3, 40, 30, seed=1).bfloat16())
    models = models_of(tmp_path, *({"w": tensor} for tensor in (base, *experts)))
    engine, out = Engine(models, memo_bytes=1 << 20), torch.empty(40, 30)
    row, part = CATALOG["sce"], Part("w", Place(0, "other"), "w", ("w",) * 3)
    settings = [parameters_of(row, {"select": 0.3, "lambda": scale}) for scale in (1.0, 0.5)]
    expected = [merge(row, base, experts, [1.0] * 3, values) for values in settings]
    for values, result in zip(settings, expected, strict=True):
        plan = MergePlan("sce", implementation(row), values, (0.3,), (1.0,) * 3, 0, torch.float32)
        engine.merge(Plan(part, plan, 1), out)
        assert torch.equal(out, result)
        monkeypatch.setattr("merging.methods.sce._most_varied", None)  # what is prepared twice fails


def test_sce_erases_the_minority_sign() -> None:
    # variances [1, 9, 2¼, ...]: elements 1 and 2; A + B = −1 at element 2 elects −
    check(update("sce", [A, B], select=0.5), 0.0, 6.0, -2.0, 0.0)


def test_sce_weights_are_equal_where_there_is_next_to_no_energy() -> None:
    first, second = torch.tensor([4e-4, 2e-4, 0.0]), torch.tensor([2e-4, 6e-4, 1e-4])  # mean squares sum to 2e-7
    check(1e4 * update("sce", [first, second], select=0.34), 0.0, 5.6, 0.0)
    check(1e4 * update("sce", [first, second], select=0.34, uniform_below=1e-6), 0.0, 4.0, 0.0)


def test_sce_of_experts_without_a_difference_selects_nothing() -> None:
    for experts in ([A], [A, A]):
        check(update("sce", experts, select=0.9), 0.0, 0.0, 0.0, 0.0)
        check(update("sce", experts, select=1.0), *A.tolist())
        check(update("sce", experts, select=0.9, mask_output=False), *A.tolist())


def test_sce_selects_one_element_of_a_tiny_tensor() -> None:
    check(update("sce", [A, B], select=0.01), 0.0, 6.0, 0.0, 0.0)


def test_ram_keeps_unique_changes_whole_and_averages_shared_ones() -> None:
    first, second = torch.tensor([4.0, 0.0, -2.0, 1e-6]), torch.tensor([2.0, 6.0, 0.0, 1e-6])
    check(update("ram", [first, second]), 3.0, 6.0, -2.0, 0.0)
    check(update("ram", [first, second], [3.0, 1.0], lambda_=2.0), 7.0, 12.0, -4.0, 0.0)
    check(update("ram", [first, second], [0.0, 1.0]), 2.0, 6.0, 0.0, 0.0)
    check(update("ram", [first, second], epsilon=0.0), 3.0, 6.0, -2.0, 1e-6)
    check(update("ram", [first, second], epsilon=3.0), 4.0, 6.0, 0.0, 0.0)


def test_ram_plus_strengthens_unique_changes_by_the_share_that_is_averaged() -> None:
    # each changed one element with the other and one alone: ρ = 1
    first, second = torch.tensor([4.0, 0.0, -2.0, 1e-6]), torch.tensor([2.0, 6.0, 0.0, 1e-6])
    check(update("ram_plus", [first, second], r=0.5, alpha=1.0), 3.0, 9.0, -3.0, 0.0)
    check(update("ram_plus", [first, second], r=0.5, alpha=0.2), 3.0, 6.6, -2.2, 0.0)
    check(update("ram_plus", [first, second], [0.0, 1.0], r=0.5), 2.0, 6.0, 0.0, 0.0)  # nothing is shared


def test_ram_plus_survives_experts_that_share_everything() -> None:
    check(update("ram_plus", [torch.tensor([1.0, 3.0]), torch.tensor([3.0, -3.0])]), 2.0, 0.0)


def test_ram_plus_without_strength_is_ram() -> None:
    deltas = list(noise(3, 50) * (noise(3, 50, seed=1) > 0))
    weights = [1.0, 0.0, 2.0]
    assert_close(update("ram_plus", deltas, weights, r=0.0), update("ram", deltas, weights), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", ["magmax", "emr", "consensus", "cabs", "ram", "ram_plus"])
def test_an_expert_of_weight_0_is_left_out(name: str) -> None:
    loud = torch.tensor([-100.0, 100.0, 0.0, 50.0])
    values = {"density": 0.5} if name == "cabs" else {}
    assert_close(update(name, [loud, B], [0.0, 1.0], **values), update(name, [B], [1.0], **values))


@EVERY
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_reaches_the_result(name: str, bad: float) -> None:
    for experts in ([A, B], [B, A]):
        for where in range(4):
            spoilt = experts[0] + 0.25  # no zeros
            spoilt[where] = bad
            assert not update(name, [spoilt, experts[1] + 0.25])[where].isfinite()


@EVERY
@pytest.mark.parametrize("shape", [(), (1,), (5, 1), (1, 5)])
@pytest.mark.parametrize("scales", [(0.0, 0.0), (1.0, -1.0), (1.0, -2.0), (1e-20, 1e-30)])
def test_tiny_tensors_zeros_and_opposites_stay_finite(
    name: str, shape: tuple[int, ...], scales: tuple[float, float]
) -> None:
    base = torch.zeros(shape)
    out = merge(CATALOG[name], base, [base + scale for scale in scales], [1.0, 1.0])
    assert out.shape == shape and out.isfinite().all()
    assert any(scales) or torch.equal(out, base)


@pytest.mark.parametrize("name", MASKING)
def test_a_tensor_without_elements_stays_one(name: str) -> None:
    assert update(name, [torch.zeros(0, 4), torch.zeros(0, 4)]).shape == (0, 4)


@pytest.mark.parametrize("name", MASKING)
def test_the_threads_do_not_change_a_bit(name: str) -> None:
    base, before = torch.ones(3, 40_000), torch.get_num_threads()
    experts = list(base + noise(3, 3, 40_000))
    found: list[Tensor] = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(merge(CATALOG[name], base, experts, [1.0, 1.0, 1.0]))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])
