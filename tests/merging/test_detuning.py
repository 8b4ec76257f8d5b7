"""A missing base found again: planted low-rank fine-tunes, a plain version beside it, whole folders."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close
from transformers import LlamaForCausalLM

from merging.checkpoint import INDEX, SINGLE, Checkpoint
from merging.detuning import RECORD, estimate, estimate_base
from merging.errors import InvalidModel, OutputError
from tests.merging.factories import tiny_llama, write_tensors


def planted(count: int, rank: int, out: int = 64, inputs: int = 64, seed: int = 0) -> tuple[Tensor, list[Tensor]]:
    """A base and fine-tunes that add a matrix of that rank and a fifth of its size each."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    base = draw(out, inputs)
    return base, [base + 0.2 * draw(out, rank) @ draw(rank, inputs) / rank**0.5 for _ in range(count)]


def error(found: Tensor, base: Tensor) -> float:
    return float((found - base).norm() / base.norm())


@pytest.mark.parametrize("rank", [4, 16])  # known, or the default
@pytest.mark.parametrize("shape", [(64, 64), (48, 80)])
def test_the_base_of_five_models_of_rank_4_is_recovered(shape: tuple[int, int], rank: int) -> None:
    base, models = planted(5, 4, *shape)
    assert error(torch.stack(models).mean(0), base) > 0.05
    found = estimate(models, rank=rank)
    assert found.base.dtype == torch.float64 and error(found.base, base) < 1e-6
    assert 0 <= found.unexplained < 1e-12


def test_three_models_are_enough_at_low_rank() -> None:
    base, models = planted(3, 2)
    assert error(estimate(models).base, base) < 1e-6


def test_rounded_models_are_recovered_to_their_rounding() -> None:
    base, models = planted(5, 4)
    rounded = [model.bfloat16() for model in models]
    assert error(estimate(rounded).base, base) < 0.002 < 0.02 < error(torch.stack(rounded).double().mean(0), base)


def test_of_full_fine_tunes_much_is_unexplained_and_the_mean_is_nearer() -> None:
    base, models = planted(5, 64)
    found, mean = estimate(models), torch.stack(models).mean(0)
    assert found.unexplained > 0.1 and error(found.base, base) > error(mean, base)
    nothing = estimate(models, iterations=0)
    assert nothing.unexplained == 1 and torch.equal(nothing.base, mean)


def plain(models: Sequence[Tensor], rank: int, rounds: int) -> Tensor:
    """The paper's alternation at one rank, with full decompositions."""
    base = torch.stack(list(models)).mean(0)
    for _ in range(rounds):
        parts = []
        for model in models:
            left, values, right = torch.linalg.svd(model - base, full_matrices=False)
            parts.append(model - (left[:, :rank] * values[:rank]) @ right[:rank])
        base = torch.stack(parts).mean(0)
    return base


def test_subspace_iterations_follow_the_full_decompositions() -> None:
    _, models = planted(3, 1, 24, 16)
    for rounds in (8, 12):
        assert_close(estimate(models, rank=1, iterations=rounds).base, plain(models, 1, rounds), rtol=0, atol=2e-5)


def test_equal_models_are_their_own_base() -> None:
    model = planted(1, 4, 6, 5)[0]
    assert_close(estimate([model] * 3).base, model)
    assert_close(estimate([torch.zeros(6, 5)] * 3).base, torch.zeros(6, 5, dtype=torch.float64))


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1), (2, 3)])
def test_slivers_stay_within_the_models(shape: tuple[int, int]) -> None:
    _, models = planted(4, 1, *shape)
    found = estimate([model.float() for model in models]).base
    assert found.shape == shape and torch.isfinite(found).all()


def test_bits_repeat_whatever_the_global_generator_does() -> None:
    _, models = planted(3, 4, 20, 12)
    once = estimate(models, iterations=20).base
    torch.manual_seed(7)
    assert torch.equal(estimate(models, iterations=20).base, once)


def write_fine_tunes(root: Path, count: int = 4, *, shards: str = "1GB", **how: Any) -> tuple[Any, list[Path]]:
    """A tiny Llama, and folders of models that add rank 1 to its attention and noise to its final norm."""
    base, paths = tiny_llama(**how), []
    for seed in range(count):
        generator = torch.Generator().manual_seed(seed)
        model = tiny_llama(**how)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "self_attn" in name:
                    left, right = (torch.randn(n, generator=generator) for n in parameter.shape)
                    parameter.add_((0.01 * torch.outer(left, right)).to(parameter.dtype))
            model.model.norm.weight.add_(0.1 * seed)
        model.save_pretrained(root / str(seed), max_shard_size=shards)
        (root / str(seed) / "tokenizer.json").write_text("{}")
        paths.append(root / str(seed))
    return base, paths


@pytest.mark.parametrize("how", [{}, {"shards": "40KB", "tied": True}])
def test_a_folder_of_the_base_appears_and_loads(tmp_path: Path, how: dict[str, Any]) -> None:
    base, paths = write_fine_tunes(tmp_path, **how)
    seen: list[str] = []
    estimate_base(paths, tmp_path / "base", rank=1, progress=seen.append)
    found, first = Checkpoint(tmp_path / "base"), Checkpoint(paths[0])
    assert found.names == first.names and sorted(seen) == list(first.names)
    for name, value in base.state_dict().items():
        if name not in found.names:
            assert name == "lm_head.weight" and how["tied"]
        elif name == "model.norm.weight":
            assert_close(found.tensor(name), value + 0.15)  # the mean
        elif "self_attn" in name:
            assert error(found.tensor(name), value) < 1e-5 < 1e-2 < error(first.tensor(name), value)
        else:
            assert torch.equal(found.tensor(name), value)
    loaded, report = LlamaForCausalLM.from_pretrained(tmp_path / "base", output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    assert torch.equal(loaded.lm_head.weight, base.lm_head.weight)
    files = {p.name for p in paths[0].iterdir()} | {RECORD}
    assert {p.name for p in (tmp_path / "base").iterdir()} == files
    assert (INDEX if "shards" in how else SINGLE) in files
    record = json.loads((tmp_path / "base" / RECORD).read_text())
    assert record["models"] == [str(path) for path in paths] and record["rank"] == 1
    assert 0 < record["unexplained"] < 1e-8


def test_stacks_are_estimated_slice_by_slice_and_the_rest_is_averaged(tmp_path: Path) -> None:
    base, paths = planted(3, 1, 12, 10)[0], []
    experts = [planted(4, 1, 12, 10, seed=seed) for seed in range(2)]
    stacks = [torch.stack([e[1][i] for e in experts]).float() for i in range(4)]
    for i, stack in enumerate(stacks):
        tensors = {
            "layers.0.experts.up_proj": stack,
            "layers.0.conv.weight": torch.full((2, 3, 4), float(i)),
            "layers.0.half": torch.full((3,), float(i), dtype=torch.bfloat16),
            "layers.0.steps": torch.tensor([i]),
            "layers.0.empty": torch.zeros(0, 3),
            "layers.0.same.weight": base.clone(),
            "embed_tokens.weight": torch.eye(5, 4) + i,
            "lm_head.weight": torch.eye(5, 4) + i,  # tied, which an empty config does not say
        }
        paths.append(write_tensors(tmp_path / str(i), tensors))
    estimate_base(paths, tmp_path / "out", rank=1)
    found = Checkpoint(tmp_path / "out")
    assert 0 < json.loads((tmp_path / "out" / RECORD).read_text())["unexplained"] < 1e-8
    truth = torch.stack([e[0] for e in experts])
    assert error(found.tensor("layers.0.experts.up_proj"), truth) < 1e-5
    assert torch.equal(found.tensor("layers.0.conv.weight"), torch.full((2, 3, 4), 1.5))
    assert torch.equal(found.tensor("layers.0.half"), torch.full((3,), 1.5, dtype=torch.bfloat16))
    assert torch.equal(found.tensor("layers.0.steps"), torch.tensor([0]))  # a count is the first model's
    assert torch.equal(found.tensor("layers.0.same.weight"), base)
    assert found.tensor("layers.0.empty").shape == (0, 3)
    assert found.config["tie_word_embeddings"] is True and "lm_head.weight" not in found.names


@pytest.mark.parametrize("count", [0, 1, 2])
def test_fewer_than_three_models_are_refused(tmp_path: Path, count: int) -> None:
    paths = [tmp_path / str(i) for i in range(count)]
    with pytest.raises(InvalidModel, match=rf"^checkpoints: {count} models do not determine a base; give 3 or more"):
        estimate_base(paths, tmp_path / "out")


def test_nothing_is_left_when_models_do_not_fit_or_are_not_finite(tmp_path: Path) -> None:
    good = [write_tensors(tmp_path / str(i), {"w": torch.eye(3) * (i + 1)}) for i in range(2)]
    other = write_tensors(tmp_path / "other", {"w": torch.eye(4)})
    bad = write_tensors(tmp_path / "bad", {"w": torch.full((3, 3), float("nan"))})
    before = sorted(tmp_path.iterdir())
    with pytest.raises(InvalidModel, match=r"^checkpoints\[2\]: .* of shape \[4, 4\]"):
        estimate_base([*good, other], tmp_path / "out")
    with pytest.raises(InvalidModel, match=r"^checkpoints\[2\]: .*bad' has NaN or infinity in tensor w"):
        estimate_base([*good, bad], tmp_path / "out")
    with pytest.raises(OutputError, match="exists"):
        estimate_base([*good, good[0]], tmp_path / "bad")
    assert sorted(tmp_path.iterdir()) == before
