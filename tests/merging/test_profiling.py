"""What is known of models before anything is tried."""

from pathlib import Path

import pytest
import torch

from merging.profiling import profile, sums_bytes
from tests.merging.factories import LAYERS, open_models


def test_inner_products_add_up_layer_by_layer_to_those_of_the_whole(tmp_path: Path) -> None:
    models = open_models(tmp_path)
    found = profile(models)
    assert len(found.inner) == len(found.base) == LAYERS
    whole = torch.zeros(3, 3, dtype=torch.float64)
    for name in models.base.names:
        stack = models.stack(name)
        rows = torch.stack([(expert.double() - stack.base.double()).reshape(-1) for expert in stack.experts])
        whole += rows @ rows.T
    assert torch.tensor(found.inner, dtype=torch.float64).sum(0).flatten().tolist() == pytest.approx(
        whole.flatten().tolist()
    )
    assert found.squares == pytest.approx(whole.diagonal().tolist())


def test_sums_take_two_products_of_inputs_for_each_matrix_and_expert(tmp_path: Path) -> None:
    # q, k, v, o, gate and up read 32 inputs, down reads 48; embeddings and heads are no matrices
    assert sums_bytes(open_models(tmp_path)) == 2 * 4 * 3 * LAYERS * (6 * 32**2 + 48**2)
