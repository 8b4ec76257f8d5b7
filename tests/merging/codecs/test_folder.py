"""A compressed expert is read as it was written, and appears whole or not at all."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from weakref import ref

import pytest
import torch
from safetensors.torch import load_file

from merging.checkpoint import SINGLE, Checkpoint
from merging.codecs import folder as folder_module
from merging.codecs.catalog import CODECS
from merging.codecs.folder import PAYLOAD, About, read, write
from merging.codecs.packing import Item, pack_expert
from merging.codecs.record import RECORD
from merging.codecs.size import bits_per_parameter, payload_bytes
from merging.codecs.whole import Whole
from merging.errors import InvalidModel, OutputError
from tests.merging.codecs.planted import compress
from tests.merging.factories import write_tensors

EACH_CODEC = pytest.mark.parametrize("name", CODECS)


@EACH_CODEC
def test_what_is_read_is_what_was_packed(tmp_path: Path, models: tuple[Checkpoint, Checkpoint], name: str) -> None:
    base, expert = models
    found = compress(tmp_path / "out", models, name)
    items = list(pack_expert(base, expert, name, {}))
    assert list(found.tensors) == list(base.names) == [tensor for tensor, _, _ in items]
    for tensor, form, packed in items:
        again, start = found.tensors[tensor], base.tensor(tensor)
        assert found.record.tensors[tensor].codec == form and type(again) is type(packed)
        assert again.numbers == packed.numbers and again.shape == packed.shape
        assert torch.equal(again.expert(start), packed.expert(start))
        if CODECS[name].lossless:
            assert torch.equal(again.expert(start), expert.tensor(tensor))


@EACH_CODEC
def test_the_record_counts_what_the_file_holds(
    tmp_path: Path, models: tuple[Checkpoint, Checkpoint], name: str
) -> None:
    found = compress(tmp_path / "out", models, name)
    content, stored = json.loads((tmp_path / "out" / RECORD).read_bytes()), load_file(tmp_path / "out" / PAYLOAD)
    held = sum(tensor.nbytes for tensor in stored.values())
    parameters = sum(models[0].tensor(tensor).numel() for tensor in models[0].names)
    assert content["schema"] == "mergesearch/delta/v1" and content["base"] == models[0].fingerprint()
    assert (content["codec"], content["settings"]) == (name, CODECS[name].checked({}))
    assert (content["bytes"], content["parameters"]) == (held, parameters)
    assert content["bits_per_parameter"] == 8 * held / parameters == bits_per_parameter(found.tensors.values())
    assert held == sum(map(payload_bytes, found.tensors.values())) < (tmp_path / "out" / PAYLOAD).stat().st_size
    # noise has no low rank: its matrices stay whole
    assert content["bits_per_parameter"] <= 16 and (content["bits_per_parameter"] < 16) == (name != "lowrank")


def test_the_experts_config_and_companions_come_along(tmp_path: Path, models: tuple[Checkpoint, Checkpoint]) -> None:
    compress(tmp_path / "out", models)
    files = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert files == {
        *(PAYLOAD, RECORD, "config.json", "tokenizer.json", "generation_config.json"),
        "additional_chat_templates/tool.jinja",
    }
    assert json.loads((tmp_path / "out" / "tokenizer.json").read_text()) == {"of": "the expert"}
    assert json.loads((tmp_path / "out" / "config.json").read_text()) == models[1].config


def test_a_head_that_is_left_out_is_declared_tied(tmp_path: Path) -> None:
    words = {"model.embed_tokens.weight": torch.ones(3, 2), "lm_head.weight": torch.ones(3, 2)}
    tied = Checkpoint(write_tensors(tmp_path / "tied", words))
    write(tmp_path / "out", tied, pack_expert(tied, tied, "xor", {}), About("xor", {}, tied))
    assert json.loads((tmp_path / "out" / "config.json").read_text()) == {"tie_word_embeddings": True}
    assert list(read(tmp_path / "out").tensors) == ["model.embed_tokens.weight"]


def test_payloads_are_aligned_views_of_the_file(tmp_path: Path) -> None:
    odd = {
        "a.weight": torch.ones(3, 3),
        "b": torch.ones(3, dtype=torch.int8),
        "c": torch.tensor(7),
        "d": torch.ones(0, 2),
    }
    base = Checkpoint(write_tensors(tmp_path / "base", odd))
    expert = Checkpoint(write_tensors(tmp_path / "expert", {name: tensor + 1 for name, tensor in odd.items()}))
    found = compress(tmp_path / "out", (base, expert), "bitdelta")
    for packed in found.tensors.values():
        for part in packed.payload.values():
            assert not part.numel() or part.data_ptr() % part.element_size() == 0
    whole = found.tensors["c"]
    assert whole.expert(torch.tensor(0)).item() == 8
    whole.payload["tensor"].zero_()  # a private mapping: the file keeps what it has
    assert read(tmp_path / "out").tensors["c"].expert(torch.tensor(0)).item() == 8


def test_an_expert_that_learned_nothing_takes_nothing(tmp_path: Path, models: tuple[Checkpoint, Checkpoint]) -> None:
    found = compress(tmp_path / "out", (models[0], models[0]), "bitdelta")
    assert found.record.bytes_ == 0 == found.record.bits_per_parameter
    assert {row.codec for row in found.record.tensors.values()} == {"same"}


def test_equal_experts_give_equal_files(tmp_path: Path, models: tuple[Checkpoint, Checkpoint]) -> None:
    for place in ("one", "two"):
        compress(tmp_path / place, models)
    for file in (PAYLOAD, RECORD, "config.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_tensors_are_let_go_as_they_are_written(tmp_path: Path, models: tuple[Checkpoint, Checkpoint]) -> None:
    base, alive, most = models[0], [], 0

    def items() -> Iterator[Item]:
        nonlocal most
        for place in range(9):
            tensor = torch.full((64,), float(place))
            alive.append(ref(tensor))
            yield f"t{place}", "whole", Whole(tensor)
            most = max(most, sum(each() is not None for each in alive))

    write(tmp_path / "out", base, items(), About("xor", {}, base))
    assert most <= 2
    assert [each.expert(torch.ones(64))[0].item() for each in read(tmp_path / "out").tensors.values()] == [*range(9)]


def test_nothing_is_left_of_a_write_that_fails(tmp_path: Path, models: tuple[Checkpoint, Checkpoint]) -> None:
    broken = write_tensors(tmp_path / "nan", {"a.weight": torch.ones(2, 2), "b.weight": torch.full((2, 2), torch.nan)})
    fine = write_tensors(tmp_path / "fine", {"a.weight": torch.zeros(2, 2), "b.weight": torch.zeros(2, 2)})
    before = sorted(tmp_path.iterdir())
    with pytest.raises(InvalidModel, match=r"NaN or infinity in tensor b\.weight"):
        compress(tmp_path / "out", (Checkpoint(fine), Checkpoint(broken)))
    assert sorted(tmp_path.iterdir()) == before


def test_what_exists_is_left_alone(tmp_path: Path, models: tuple[Checkpoint, Checkpoint]) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(OutputError, match="exists; choose another folder"):
        compress(tmp_path / "out", models)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


KILLED = """
import os, sys, pathlib, torch
from merging.checkpoint import Checkpoint
from merging.codecs.folder import About, write
from merging.codecs.whole import Whole
from tests.merging.codecs.planted import QUICK
def items():
    yield "a", "whole", Whole(torch.ones(1000))
    os._exit(9)
base = Checkpoint(pathlib.Path(sys.argv[1]))
write(pathlib.Path(sys.argv[2]), base, items(), About("xor", {}, base))
"""


def test_a_killed_write_leaves_no_folder_and_the_next_clears_it_away(
    tmp_path: Path, models: tuple[Checkpoint, Checkpoint]
) -> None:
    root = Path(folder_module.__file__).parents[2]
    command = [sys.executable, "-c", KILLED, str(models[0].path), str(tmp_path / "out")]
    assert subprocess.run(command, cwd=root, check=False).returncode == 9
    assert not (tmp_path / "out").exists() and len(list(tmp_path.glob(".out.*.part"))) == 1
    compress(tmp_path / "out", models)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_model_file_is_no_compressed_expert(models: tuple[Checkpoint, Checkpoint]) -> None:
    with pytest.raises(InvalidModel, match=r"^model: .* has no delta\.json; give the folder of a compressed expert"):
        read(models[1].path)
    assert (models[1].path / SINGLE).exists()
