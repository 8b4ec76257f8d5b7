"""The methods that read what was measured on data: against least squares, hand numbers and their limits."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from merging.catalog import CATALOG
from merging.catalog.declare import ArtefactKind
from merging.methods.contract import TensorContext
from merging.methods.fisher import fisher
from merging.methods.pleas import pleas, pleas_pp
from merging.methods.regmean import regmean
from tests.merging.driver import context_of, merge, parameters_of

CODE = {"fisher": fisher, "regmean": regmean, "pleas": pleas, "pleas_pp": pleas_pp}
EXACT: dict[str, Any] = {"ridge": 1e-9, "alpha": 1.0}


NAMES = ("e2", "e0", "e1")  # fingerprints, in no order


@dataclass(frozen=True)
class Given:
    """Satisfies `Measured`: of each expert its tensors by part."""

    parts: Sequence[dict[str, Tensor]]

    def tensor(self, kind: ArtefactKind, expert: int, part: str = "") -> Tensor | None:
        return self.parts[expert].get(part)

    def figure(self, kind: ArtefactKind, expert: int, name: str) -> float:
        found = self.parts[expert][""].double()
        return float({"mean": found.mean(), "norm": found.norm()}[name])


def merged(
    method: str, experts: Sequence[Tensor], measured: Given, weights: Sequence[float] = (), **parameters: Any
) -> Tensor:
    """The merge around a base of zeros."""
    row, base = CATALOG[method], parameters.pop("base", torch.zeros_like(experts[0]))
    turned = bool(parameters.pop("transposed", False))
    plain = context_of(base, experts, transposed=turned, fingerprints=NAMES[: len(experts)])
    context = TensorContext(
        plain.name, 0, plain.experts, plain.statistics, plain.shape, plain.role, turned, 0.0, measured
    )
    values, code = parameters_of(row, parameters), CODE[method]
    deltas = torch.stack(list(experts)) - base
    prepared = code.prepare(deltas, values, context)
    return base + code.combine(deltas, prepared, torch.tensor(list(weights) or [1.0] * len(experts)), values)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gram(inputs: Tensor) -> dict[str, Tensor]:
    """E[x xᵀ] of inputs [n, in]."""
    return {"gram.0": (inputs.mT @ inputs / len(inputs)).float()}


def test_fisher_by_hand() -> None:
    experts = [torch.tensor([1.0, 1.0, 1.0]), torch.tensor([3.0, 3.0, 3.0])]
    measured = Given([{"": torch.tensor([1.0, 3.0, 0.0])}, {"": torch.tensor([1.0, 1.0, 0.0])}])
    found = merged("fisher", experts, measured, balance="none", floor=1e-12)
    assert_close(found, torch.tensor([2.0, 1.5, (4 / 3 * 1 + 2 / 3 * 3) / 2]))  # where nobody is sure: by the means
    twice = merged("fisher", experts, measured, [1.0, 3.0], balance="none", floor=1e-12)
    assert_close(twice[:2], torch.tensor([(1 + 9) / 4, (3 + 9) / 6]))


@pytest.mark.parametrize("balance", ["norm", "mean", "none"])
def test_equal_fisher_and_a_large_floor_give_the_plain_average(balance: str) -> None:
    experts = [drawn(5, 4, seed=i).float() for i in range(3)]
    same = Given([{"": drawn(5, 4, seed=9).square().float()}] * 3)
    mean = (1 * experts[0] + 2 * experts[1] + 1 * experts[2]) / 4
    assert_close(merged("fisher", experts, same, [1.0, 2.0, 1.0], balance=balance), mean)
    other = Given([{"": drawn(5, 4, seed=i).square().float()} for i in range(3)])
    if balance == "mean":  # else experts whose Fisher is larger everywhere count more
        assert_close(merged("fisher", experts, other, balance=balance, floor=1e12), torch.stack(experts).mean(0))


def test_an_expert_that_is_sure_wins() -> None:
    experts = [torch.tensor([1.0]), torch.tensor([5.0])]
    measured = Given([{"": torch.tensor([1e9])}, {"": torch.tensor([1.0])}])
    assert_close(
        merged("fisher", experts, measured, balance="none", floor=1e-9), torch.tensor([1.0]), atol=1e-5, rtol=0
    )
    balanced = merged("fisher", experts, measured, balance="mean", floor=1e-9)
    assert_close(balanced, torch.tensor([3.0]))  # each on its own scale they are equally sure


def test_regmean_is_stacked_least_squares() -> None:
    inputs = [drawn(40, 6, seed=i) for i in range(3)]
    experts = [drawn(5, 6, seed=10 + i) for i in range(3)]
    weights = [0.5, 1.0, 2.0]
    rows = torch.cat([(w / len(x)) ** 0.5 * x for w, x in zip(weights, inputs, strict=True)])
    wanted = torch.cat([(w / len(x)) ** 0.5 * (x @ m.mT) for w, x, m in zip(weights, inputs, experts, strict=True)])
    solution = torch.linalg.lstsq(rows, wanted).solution.mT.float()
    found = merged("regmean", [m.float() for m in experts], Given([gram(x) for x in inputs]), weights, **EXACT)
    assert_close(found, solution, rtol=1e-4, atol=1e-5)
    turned = merged(
        "regmean",
        [m.mT.contiguous().float() for m in experts],
        Given([gram(x) for x in inputs]),
        weights,
        transposed=True,
        **EXACT,
    )
    assert_close(turned.mT, found, rtol=1e-5, atol=1e-6)


def test_equal_inputs_give_the_mean_and_separate_ones_each_expert() -> None:
    experts = [drawn(3, 4, seed=i).float() for i in range(2)]
    same = gram(drawn(9, 4, seed=5))
    assert_close(merged("regmean", experts, Given([same, same]), alpha=0.7), torch.stack(experts).mean(0))
    first, second = torch.eye(4)[:2], torch.eye(4)[2:]
    apart = merged("regmean", experts, Given([gram(first), gram(second)]), **EXACT)
    assert_close(apart, torch.cat([experts[0][:, :2], experts[1][:, 2:]], dim=1), rtol=1e-5, atol=1e-5)


def test_without_products_each_input_channel_has_weights_of_its_own() -> None:
    experts, inputs = [drawn(3, 4, seed=i).float() for i in range(2)], [drawn(9, 4, seed=5 + i) for i in range(2)]
    squares = [x.square().mean(0).float() for x in inputs]
    channels = (experts[0] * squares[0] + experts[1] * squares[1]) / (squares[0] + squares[1])
    whole = merged("regmean", experts, Given([gram(x) for x in inputs]), alpha=0.0, ridge=1e-9)
    assert_close(whole, channels)
    kept = merged("regmean", experts, Given([{"gram.0": s} for s in squares]), alpha=0.9, ridge=1e-9)
    assert_close(kept, channels)


def test_blocks_are_the_whole_where_they_do_not_touch() -> None:
    experts = [drawn(3, 5, seed=i).float() for i in range(2)]
    grams = [torch.block_diag(*(gram(drawn(9, n, seed=7 * n + i))["gram.0"] for n in (3, 2))) for i in range(2)]
    whole = merged("regmean", experts, Given([{"gram.0": g} for g in grams]), ridge=1e-6)
    parts = merged("regmean", experts, Given([{"gram.0": g[:3, :3], "gram.1": g[3:, 3:]} for g in grams]), ridge=1e-6)
    assert_close(parts, whole, rtol=1e-3, atol=1e-4)  # each block has a ridge of its own


def common(inputs: Sequence[Tensor]) -> Given:
    """What a `common inputs` artefact keeps of inputs [n, in] of each expert."""
    parts: list[dict[str, Tensor]] = []
    for ours, left in zip(NAMES, inputs, strict=False):
        rest = {name: right for name, right in zip(NAMES, inputs, strict=False) if ours <= name}
        parts.append({f"with.{name}.0": (left.mT @ right / len(left)).float() for name, right in rest.items()})
    return Given(parts)


def following(own: Sequence[Tensor], merged_inputs: Sequence[Tensor]) -> Given:
    """What a `merged inputs` artefact keeps."""
    pairs = zip(own, merged_inputs, strict=True)
    return Given([{"gram.0": (x.mT @ x / len(x)).float(), "cross.0": (z.mT @ x / len(x)).float()} for z, x in pairs])


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("method", ["pleas", "pleas_pp"])
def test_pleas_is_least_squares_whatever_the_base_and_the_order(method: str, turned: bool) -> None:
    inputs, behind = ([drawn(40, 6, seed=i + first) for i in range(3)] for first in (0, 20))
    experts, base = [drawn(5, 6, seed=10 + i) for i in range(3)], drawn(5, 6, seed=30)
    weights = [0.5, 1.0, 2.0]
    shares = [w / 3.5 for w in weights]
    outputs = [x @ m.mT for x, m in zip(inputs, experts, strict=True)]
    if method == "pleas":
        rows = sum(w * x for w, x in zip(shares, inputs, strict=True))
        wanted = sum(w * y for w, y in zip(shares, outputs, strict=True))
        assert isinstance(rows, Tensor) and isinstance(wanted, Tensor)
        measured = common(inputs)
    else:
        rows = torch.cat([w**0.5 * x for w, x in zip(shares, behind, strict=True)])
        wanted = torch.cat([w**0.5 * y for w, y in zip(shares, outputs, strict=True)])
        measured = following(inputs, behind)
    solution = torch.linalg.lstsq(rows, wanted).solution
    stored = [(m.mT if turned else m).contiguous().float() for m in (base, *experts)]
    found = merged(method, stored[1:], measured, weights, base=stored[0], ridge=1e-9, transposed=turned)
    assert_close(found if turned else found.mT, solution.float(), rtol=1e-3, atol=1e-4)


def test_pleas_undoes_what_the_inputs_of_unlike_experts_do_to_their_mean() -> None:
    """Experts that do the same of inputs turned against each other: one matrix does it of the mean of both."""
    half = drawn(4, 4, seed=2)
    inputs, turn = drawn(50, 4, seed=1), torch.matrix_exp((half - half.mT) / 2)
    wanted = drawn(3, 4, seed=3)
    experts = [wanted.float(), (wanted @ turn).float()]
    measured = common([inputs, inputs @ turn])
    found = merged("pleas", experts, measured, ridge=1e-9).double()
    mean, both = (inputs + inputs @ turn) / 2, inputs @ wanted.mT
    assert_close(mean @ found.mT, both, rtol=1e-2, atol=1e-2)
    plain = mean @ torch.stack(experts).mean(0).double().mT
    assert float((plain - both).norm()) > 0.3 * float(both.norm())


def test_wudi_is_regmean_on_the_deltas_themselves() -> None:
    deltas = [drawn(6, 5, seed=i).float() for i in range(3)]
    own = Given([{"gram.0": d.mT @ d / d.square().sum()} for d in deltas])
    wudi = merge(CATALOG["wudi"], torch.zeros(6, 5), deltas, [1.0] * 3, {"ridge": 1e-2})
    assert_close(merged("regmean", deltas, own, alpha=1.0, ridge=1e-2), wudi, rtol=1e-4, atol=1e-5)


def test_inputs_that_never_come_ask_for_nothing() -> None:
    experts = [drawn(3, 4, seed=i).float() for i in range(2)]
    nothing = Given([{"gram.0": torch.zeros(4, 4)}] * 2)
    assert_close(merged("regmean", experts, nothing), torch.stack(experts).mean(0))


@pytest.mark.parametrize("method", list(CODE))
def test_what_was_not_measured_takes_the_weighted_mean(method: str) -> None:
    experts = [drawn(3, 4, seed=i).float() for i in range(2)]
    factor = 2.0 if CATALOG[method].parameter("lambda") else 1.0
    found = merged(method, experts, Given([{}, {}]), [1.0, 3.0], **{"lambda": factor})
    assert_close(found, factor * (experts[0] + 3 * experts[1]) / 4)
