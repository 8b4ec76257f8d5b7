"""MLPs merged in part: between the mean of the weights and the mean of the functions."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import silu
from torch.testing import assert_close

from merging.permuting.widening import Mlp, agreement, separate_count, widened

UNITS, WIDTH = 10, 6


def mlp(seed: int) -> Mlp:
    generator = torch.Generator().manual_seed(seed)
    shapes = (UNITS, WIDTH), (UNITS, WIDTH), (WIDTH, UNITS)
    return Mlp(*(torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes))


def run(weights: Mlp, x: Tensor) -> Tensor:
    return (silu(x @ weights.gate.mT) * (x @ weights.up.mT)) @ weights.down.mT


@pytest.mark.parametrize("w", [[1.0], [0.3, 0.7], [0.5, 0.2, 0.6]])
def test_apart_they_compute_the_mean_of_the_functions(w: list[float]) -> None:
    models, x = [mlp(seed) for seed in range(len(w))], mlp(9).gate
    found = widened(models, w, torch.rand(UNITS), 1.0)
    assert found.gate.shape == found.up.shape == (UNITS * len(w), WIDTH) and found.down.shape == (WIDTH, UNITS * len(w))
    expected = torch.stack([share * run(model, x) for share, model in zip(w, models, strict=True)]).sum(0)
    assert_close(run(found, x), expected, rtol=1e-12, atol=1e-12)


def test_together_they_are_the_mean_of_the_weights() -> None:
    models = [mlp(0), mlp(1)]
    for found, a, b in zip(widened(models, [0.3, 0.7], torch.rand(UNITS), 0.0), *models, strict=True):
        assert_close(found, 0.3 * a + 0.7 * b)


def test_in_part_each_unit_is_either() -> None:
    models, w = [mlp(0), mlp(1)], [0.3, 0.7]
    similarity = torch.tensor([5.0, 1, 5, 5, 0, 5, 5, 1, 5, 5])
    found = widened(models, w, similarity, 0.2)
    apart = [1, 4]  # the two least; of the two equal ones the first
    together = [i for i in range(UNITS) if i not in apart]
    assert found.gate.shape == (UNITS + 2, WIDTH)
    assert_close(found.gate[together], 0.3 * models[0].gate[together] + 0.7 * models[1].gate[together])
    assert_close(found.down[:, together], 0.3 * models[0].down[:, together] + 0.7 * models[1].down[:, together])
    assert torch.equal(found.up[[*apart, 10, 11]], torch.cat([models[0].up[apart], models[1].up[apart]]))
    assert_close(
        found.down[:, [*apart, 10, 11]], torch.cat([0.3 * models[0].down[:, apart], 0.7 * models[1].down[:, apart]], 1)
    )


@pytest.mark.parametrize("ratio", [0.0, 0.35, 1.0])
def test_equal_models_compute_what_one_does(ratio: float) -> None:
    model, x = mlp(0), mlp(9).gate
    kept = [part.clone() for part in model]
    found = widened([model] * 2, [0.4, 0.6], torch.rand(UNITS), ratio)
    assert_close(run(found, x), run(model, x), rtol=1e-12, atol=1e-12)
    assert len(found.gate) == UNITS + separate_count(UNITS, ratio)
    assert all(torch.equal(part, before) for part, before in zip(model, kept, strict=True))


def test_the_dtype_stays() -> None:
    models = [Mlp(*(part.bfloat16() for part in mlp(seed))) for seed in range(2)]
    assert {part.dtype for part in widened(models, [0.5, 0.5], torch.rand(UNITS), 0.5)} == {torch.bfloat16}


def test_units_agree_as_far_as_all_their_numbers_do() -> None:
    first, other = mlp(0), mlp(1)
    second = Mlp(first.gate.clone(), first.up.clone(), first.down.clone())
    for mine, theirs in zip(second, other, strict=True):
        (mine if mine.shape[0] == UNITS else mine.mT)[3] = (theirs if theirs.shape[0] == UNITS else theirs.mT)[3]
    cosines = agreement([first, second])
    assert_close(cosines[[i for i in range(UNITS) if i != 3]], torch.ones(UNITS - 1, dtype=torch.float64))
    a, b = (torch.cat([each.gate[3], each.up[3], each.down[:, 3]]) for each in (first, other))
    assert_close(cosines[3], a @ b / (a.norm() * b.norm()))
    assert_close(agreement([first, second, first, other]), torch.minimum(cosines, agreement([first, other])))
    assert torch.equal(agreement([first]), torch.ones(UNITS, dtype=torch.float64))


@pytest.mark.parametrize("ratio", [-0.1, 1.1, float("nan")])
def test_a_ratio_is_a_share(ratio: float) -> None:
    with pytest.raises(ValueError, match="does not lie between 0 and 1"):
        widened([mlp(0)], [1.0], torch.rand(UNITS), ratio)
