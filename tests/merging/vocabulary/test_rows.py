"""Tensors are permuted along the vocabulary; what a model lacks is the base's, its owner's, or its owners' mean."""

import pytest
import torch

from merging.vocabulary.rows import aligned, aligned_stack, vocabulary_axis


def rows(*values: float, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """[len(values), 2]: each value and its negative."""
    return torch.tensor([[value, -value] for value in values], dtype=dtype)


def test_rows_are_permuted_and_gaps_filled() -> None:
    found = aligned(rows(1, 2, 3), torch.tensor([2, -1, 0]), rows(7, 8, 9))
    assert torch.equal(found, rows(3, 8, 1))
    assert torch.equal(aligned(rows(1, 2), torch.tensor([1, -1, 0]), None), rows(2, 0, 1))


def test_a_model_in_order_already_is_not_copied() -> None:
    tensor = rows(1, 2)
    assert aligned(tensor, torch.tensor([0, 1]), None) is tensor
    assert aligned(tensor, torch.tensor([0]), None).shape == (1, 2), "a prefix is no identity"


def test_the_last_axis_is_permuted_for_a_bias() -> None:
    bias = torch.tensor([[1.0, 2.0, 3.0]])
    assert aligned(bias, torch.tensor([2, -1, 1]), torch.tensor([[4.0, 5.0, 6.0]]), 1).tolist() == [[3.0, 5.0, 2.0]]


def test_a_missing_row_is_the_bases_then_its_owners_then_their_mean() -> None:
    """Rows of the output: known to all; the base's alone; x's alone; x's and y's; nobody's."""
    base, (x, y) = aligned_stack(
        rows(1, 2),
        [rows(10, 11, 12), rows(20, 21)],
        torch.tensor([0, 1, -1, -1, -1]),
        [torch.tensor([0, -1, 1, 2, -1]), torch.tensor([1, -1, -1, 0, -1])],
    )
    assert torch.equal(base, rows(1, 2, 11, 16, 0))
    assert torch.equal(x, rows(10, 2, 11, 12, 0))
    assert torch.equal(y, rows(21, 2, 11, 20, 0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_a_single_owners_row_is_exact_in_every_dtype(dtype: torch.dtype) -> None:
    own = torch.randn(4, 8, generator=torch.Generator().manual_seed(0)).to(dtype)
    base, (x,) = aligned_stack(own[:2] * 3, [own], torch.tensor([0, 1, -1, -1]), [torch.arange(4)])
    assert base.dtype == dtype and torch.equal(base[2:], own[2:]) and x is own


def test_models_keep_their_own_number_formats() -> None:
    base, (x,) = aligned_stack(
        rows(1, dtype=torch.bfloat16), [rows(2, 3)], torch.tensor([0, -1]), [torch.tensor([1, 0])]
    )
    assert base.dtype == torch.bfloat16 and x.dtype == torch.float32
    assert torch.equal(base, rows(1, 2, dtype=torch.bfloat16))


def test_the_models_own_tensors_are_not_written_to() -> None:
    base, x = rows(1, 2), rows(3, 4)
    aligned_stack(base, [x], torch.tensor([1, 0, -1]), [torch.tensor([-1, 0, 1])])
    assert torch.equal(base, rows(1, 2)) and torch.equal(x, rows(3, 4))


@pytest.mark.parametrize(
    ("name", "shape", "axis"),
    [
        ("model.embed_tokens.weight", (61, 32), 0),
        ("language_model.model.embed_tokens.weight", (61, 32), 0),
        ("transformer.wte.weight", (61, 32), 0),
        ("shared.weight", (61, 32), 0),
        ("bert.embeddings.word_embeddings.weight", (61, 32), 0),
        ("backbone.embeddings.weight", (61, 32), 0),
        ("lm_head.weight", (61, 32), 0),
        ("lm_head.bias", (61,), 0),
        ("cls.predictions.bias", (61,), 0),
        ("embed_out.weight", (61, 32), 0),
        ("output.weight", (61, 32), 0),
        ("final_logits_bias", (1, 61), 1),
        ("model.embed_tokens.weight", (64, 61), None),
        ("transformer.wpe.weight", (61, 32), None),
        ("bert.embeddings.position_embeddings.weight", (61, 32), None),
        ("model.layers.0.mlp.up_proj.weight", (61, 32), None),
        ("model.layers.0.attention.output.weight", (61, 61), None),
        ("model.norm.weight", (61,), None),
    ],
)
def test_the_vocabulary_axis_is_known_by_name_and_size(name: str, shape: tuple[int, ...], axis: int | None) -> None:
    assert vocabulary_axis(name, shape, 61) == axis
