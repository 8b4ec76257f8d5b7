"""What linear layers see: against hooks over one unpadded text at a time, for several architectures."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from evaluation.artefacts import inputs as module
from evaluation.artefacts.contract import Subject
from evaluation.artefacts.inputs import Inputs, Sums, measure_inputs
from evaluation.artefacts.texts import Text
from tests.evaluation.artefacts.subjects import (
    gpt2,
    linear,
    llama,
    mixture,
    moments,
    request,
    seen,
    some_texts,
    subject_of,
)

WIDE = 4096


def measured(subject: Subject, block: int = WIDE) -> tuple[dict[str, Tensor], Inputs]:
    """All values, and what measured them."""
    found = measure_inputs(subject, request("inputs", block=block))
    values = {name: value.clone() for name, value in found.values()}
    assert [(name, value.dtype, tuple(value.shape)) for name, value in values.items()] == found.shapes
    return values, found


def expected(inputs: dict[str, Tensor], block: int = WIDE) -> dict[str, Tensor]:
    """The same from the inputs themselves."""
    found = {}
    for name, x in inputs.items():
        whole = moments(x)
        for number, first in enumerate(range(0, x.shape[1] if block > 1 else 1, block)):
            part = slice(first, first + block)
            found[f"{name}::gram.{number}"] = whole[part, part] if block > 1 else whole.diagonal()
        found[f"{name}::mean"] = x.mean(0).float()
    return found


def assert_same(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert_close(found[name], value, rtol=1e-4, atol=1e-5)


@contextmanager
def one_row_fits(where: nn.Module) -> Iterator[list[int]]:
    """Memory runs out there for more than one row, once the layers before have seen them; the rows that came."""
    rows: list[int] = []

    def look(module: nn.Module, args: Any, output: Tensor) -> None:
        rows.append(len(output))
        if len(output) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")

    handle = where.register_forward_hook(look)
    try:
        yield rows
    finally:
        handle.remove()


def test_products_are_those_of_unpadded_texts() -> None:
    model, texts = llama(), some_texts()
    batches: list[None] = []
    values, found = measured(subject_of(model, texts, beat=lambda: batches.append(None)))
    assert len(batches) == 1 and len({len(text) for text in texts}) > 3  # all are read at once, and padded
    assert_same(values, expected(seen(model, linear(model), texts)))
    assert found.figures() == {"positions": sum(len(text) - 1 for text in texts)}


def test_matrices_that_see_the_same_are_summed_once() -> None:
    layers = measure_inputs(subject_of(llama(), some_texts()), request("inputs", block=WIDE)).layers
    short = [sorted(name.split(".", 3)[3] for name in layer.names) for layer in layers]
    attention = [f"self_attn.{part}_proj.weight" for part in "kqv"]
    once = [attention, ["self_attn.o_proj.weight"], ["mlp.gate_proj.weight", "mlp.up_proj.weight"]]
    assert short == [*once, ["mlp.down_proj.weight"]] * 2
    assert [layer.width for layer in layers] == [16, 16, 16, 24] * 2


@pytest.mark.parametrize("block", [6, 1])
def test_wide_inputs_are_summed_in_blocks_and_conv1d_by_its_input(block: int) -> None:
    model, texts = gpt2(), some_texts()
    values, _ = measured(subject_of(model, texts), block)
    assert_same(values, expected(seen(model, linear(model), texts), block))
    sizes = [len(values[f"transformer.h.0.mlp.c_fc.weight::gram.{i}"]) for i in range(3 if block == 6 else 1)]
    assert sizes == ([6, 6, 4] if block == 6 else [16])


@pytest.mark.parametrize("family", ["mixtral", "qwen3_moe"])
def test_routers_are_covered_and_experts_that_tokens_are_routed_to_are_not(family: str, tmp_path: Path) -> None:
    (model, tensors), texts = mixture(family, tmp_path), some_texts()
    values, _ = measured(subject_of(model, texts, tensors))
    modules = linear(model)
    for number, layer in enumerate(model.model.layers):
        (router,) = (n for n in tensors if f"layers.{number}." in n and n.endswith(".gate.weight"))
        modules[router] = layer.mlp.gate
    assert any(".experts.2." in name for name in tensors) and len(modules) == 2 * 5
    assert_same(values, expected(seen(model, modules, texts)))


class Routed(nn.Module):
    """Experts as modules of their own, each called with its share of the positions, if it has any."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(16, 3, bias=False)
        self.experts = nn.ModuleList([nn.Linear(16, 16, bias=False) for _ in range(3)])

    def forward(self, states: Tensor) -> Tensor:
        flat = states.reshape(-1, 16)
        best, found = self.gate(flat).argmax(-1), torch.zeros_like(flat)
        for number in best.unique().tolist():
            found[best == number] = self.experts[number](flat[best == number])
        return found.view(states.shape)


def test_an_expert_that_gets_all_of_a_text_by_chance_is_not_covered() -> None:
    model = llama()
    for layer in model.model.layers:
        layer.mlp = Routed().requires_grad_(False)
    texts = [Text([3], [4]), *some_texts()]  # of one position: all of it goes to one expert
    values, _ = measured(subject_of(model, texts))
    modules = {name: each for name, each in linear(model).items() if ".experts." not in name}
    assert_same(values, expected(seen(model, modules, texts)))


def test_a_matrix_used_in_two_places_has_the_inputs_of_both() -> None:
    model, texts = llama(), some_texts()
    first, second = model.model.layers
    second.mlp = first.mlp  # the same module, called twice
    second.self_attn.o_proj = nn.Linear(16, 16, bias=False)
    second.self_attn.o_proj.weight = first.self_attn.o_proj.weight  # another module of the same matrix
    values, _ = measured(subject_of(model, texts, dict(model.named_parameters())))
    by_module = seen(model, linear(model), texts)  # each module once, by the first of its names
    both = by_module.pop("model.layers.1.self_attn.o_proj.weight"), by_module["model.layers.0.self_attn.o_proj.weight"]
    by_module["model.layers.0.self_attn.o_proj.weight"] = torch.cat(both)
    assert_same(values, expected(by_module))


def test_rows_that_rotate_by_other_angles_are_not_read_together() -> None:
    factors = {"short_factor": [1.0] * 4, "long_factor": [4.0] * 4, "original_max_position_embeddings": 8}
    model = llama(rope_parameters={"rope_type": "longrope", "rope_theta": 10.0, "factor": 8.0, **factors})
    texts = [Text([7, 8, 9, 10, 11, 12, 13, 14], [5] * more) for more in (1, 2)]  # 8 and 9 positions
    values, _ = measured(subject_of(model, texts))
    assert_same(values, expected(seen(model, linear(model), texts)))


def test_a_small_room_takes_several_rounds_and_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    made = [0]  # bytes of each round's sums

    class Counted(Sums):
        def __init__(self, width: int, block: int, device: torch.device) -> None:
            super().__init__(width, block, device)
            made[-1] += sum(each.nbytes for each in self.means())

    monkeypatch.setattr(module, "Sums", Counted)
    model, texts = llama(), some_texts()
    whole, large = measured(subject_of(model, texts, beat=lambda: made.append(0)))
    assert (large.rounds, large.need) == (1, made[0]) and made[1:] == [0]
    made[:] = [0]
    parts, small = measured(subject_of(model, texts, room=5000, beat=lambda: made.append(0)))
    assert small.rounds == len(made) - 1 > 2 and small.need == max(made) <= 5000
    assert sum(made) == large.need
    assert all(torch.equal(parts[name], value) for name, value in whole.items())
    assert small.figures() == large.figures()


def test_running_out_of_memory_begins_again_and_counts_no_position_twice() -> None:
    model, texts = llama(), some_texts()
    subject = subject_of(model, texts)
    found = measure_inputs(subject, request("inputs", block=WIDE))
    with one_row_fits(model.model.layers[1].mlp.down_proj) as rows:
        values = dict(found.values())
    assert rows[0] > 1 and rows.count(1) >= len(texts)
    assert_same(values, expected(seen(model, linear(model), texts)))
    assert found.figures() == {"positions": sum(len(text) - 1 for text in texts)}
    assert not any(each._forward_pre_hooks for each in model.modules())


def test_to_find_the_layers_takes_no_more_memory_than_to_read_the_longest_text() -> None:
    model, texts = llama(), [Text([3] * 12, [4]), Text([5] * 3, [6])]

    def refuse(module: Any, args: Any, output: Tensor) -> None:
        if output.shape[:-1].numel() > 12:
            raise torch.OutOfMemoryError("CUDA out of memory")

    model.model.layers[0].mlp.register_forward_hook(refuse)
    values, _ = measured(subject_of(model, texts))
    assert_same(values, expected(seen(model, linear(model), texts)))


def test_one_text_that_does_not_fit_is_a_memory_error() -> None:
    model = llama()
    found = measure_inputs(subject_of(model, some_texts()), request("inputs", block=WIDE))

    def refuse(module: Any, args: Any, output: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    model.model.layers[0].register_forward_hook(refuse)
    with pytest.raises(MemoryError, match=r"a sequence of \d+ positions does not fit"):
        list(found.values())
    assert not any(each._forward_pre_hooks for each in model.modules())
