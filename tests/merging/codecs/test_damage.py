"""Folders of compressed experts that were damaged: what is wrong is told, never a crash."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from merging.checkpoint import Checkpoint
from merging.codecs.catalog import CODECS
from merging.codecs.folder import PAYLOAD, read
from merging.codecs.record import RECORD
from merging.errors import InvalidModel
from tests.merging.codecs.planted import QUICK, compress
from tests.merging.factories import write_tensors

UP, NORM = "model.layers.0.mlp.up_proj.weight", "model.norm.weight"


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory, models: tuple[Checkpoint, Checkpoint]) -> Path:
    return compress(tmp_path_factory.mktemp("packed") / "out", models).path


def record(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def rewrite(path: Path) -> None:
        content = json.loads((path / RECORD).read_bytes())
        change(content)
        (path / RECORD).write_text(json.dumps(content))

    return rewrite


def payload(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    def rewrite(path: Path) -> None:
        tensors = load_file(path / PAYLOAD)
        change(tensors)
        save_file(tensors, path / PAYLOAD)

    return rewrite


def cut(file: str, count: int) -> Callable[[Path], object]:
    return lambda path: (path / file).write_bytes((path / file).read_bytes()[:count])


def to_file(path: Path) -> None:
    shutil.rmtree(path)
    path.touch()


def one(name: str, **fields: Any) -> Callable[[Path], None]:
    return record(lambda content: content["tensors"][name].update(fields))


BAD: list[tuple[Callable[[Path], object], str, str]] = [  # what is done to the folder, problem, remedy
    (shutil.rmtree, "does not exist", "give the folder of a compressed expert"),
    (to_file, "is no folder", "give the folder"),
    (lambda path: (path / RECORD).unlink(), "has no delta.json", "give the folder"),
    (lambda path: (path / PAYLOAD).unlink(), "cannot be read (No such file", "copy or download"),
    (cut(PAYLOAD, -1), "is truncated", "copy or download"),
    (cut(PAYLOAD, 100), "is truncated or no safetensors file", "copy or download"),
    (cut(PAYLOAD, 0), "is truncated or no safetensors file", "copy or download"),
    (cut(RECORD, -9), "is damaged", "copy or download"),
    (cut(RECORD, 0), "is damaged", "copy or download"),
    (lambda path: (path / RECORD).write_text("[]"), "is damaged", "copy or download"),
    (lambda path: (path / RECORD).write_bytes(b"\xff\xfe"), "is damaged", "copy or download"),
    (record(lambda content: content.update(schema="mergesearch/delta/v2")), "'mergesearch/delta/v2', not", "compress"),
    (record(lambda content: content.pop("schema")), "is damaged (schema", "copy or download"),
    (record(lambda content: content.pop("base")), "is damaged (base", "copy or download"),
    (record(lambda content: content.update(more=1)), "is damaged (more", "copy or download"),
    (record(lambda content: content.update(codec="zip")), "was packed by 'zip'", "update mergesearch"),
    (one(UP, codec="zip"), "was packed by 'zip'", "update mergesearch"),
    (one(UP, codec="whole"), f"damaged tensor {UP} (misses the part tensor)", "copy or download"),
    (one(UP, shape=[2, 2]), f"damaged tensor {UP} (count is", "copy or download"),
    (one(UP, shape=[-48, 32]), f"is damaged (tensors.{UP}.shape.0", "copy or download"),
    (one(UP, numbers={}), f"damaged tensor {UP} (misses the number count)", "copy or download"),
    (one(UP, numbers={"count": 154, "magnitude": 1.0}), f"damaged tensor {UP} (high has 153", "copy or download"),
    (one(UP, numbers={"count": 153, "magnitude": -1.0}), f"damaged tensor {UP} (magnitude is", "copy or download"),
    (one(UP, numbers={"count": 153, "magnitude": float("nan")}), "is damaged (tensors", "copy or download"),
    (one(UP, numbers={"count": True, "magnitude": 1.0}), "is damaged (tensors", "copy or download"),
    (one(NORM, shape=[33]), f"damaged tensor {NORM} (tensor has the shape [32], not [33])", "copy or download"),
    (record(lambda content: content["tensors"].pop(UP)), "of which delta.json knows nothing", "copy or download"),
    (payload(lambda held: held.pop(f"{UP}::signs")), f"damaged tensor {UP} (misses the part signs)", "copy or"),
    (payload(lambda held: held.update({f"{UP}::more": torch.ones(1)})), "has the part more", "copy or download"),
    (payload(lambda held: held.update(extra=torch.ones(1))), "has extra, of which", "copy or download"),
    (payload(lambda held: held.update({f"{UP}::signs": torch.ones(3, dtype=torch.uint8)})), "signs has", "copy or"),
    (payload(lambda held: held.update({f"{UP}::signs": torch.ones(20)})), "signs is of torch.float32", "copy or"),
]


@pytest.mark.parametrize(("harm", "problem", "remedy"), BAD)
def test_bad_folders(harm: Callable[[Path], object], problem: str, remedy: str, packed: Path, tmp_path: Path) -> None:
    path = tmp_path / "expert"
    shutil.copytree(packed, path)
    harm(path)
    with pytest.raises(InvalidModel) as info:
        read(path, "models.experts[0]")
    message = str(info.value)
    assert message.startswith(f"models.experts[0]: '{path}")
    assert problem in message and remedy in message.split("; ", 1)[1]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Checkpoint, Path]:
    """A base of two tensors, and a folder with an expert of it in every codec."""
    root = tmp_path_factory.mktemp("small")
    draw = torch.Generator().manual_seed(0)
    base = {"a.weight": torch.randn(8, 16, generator=draw), "n": torch.randn(5, generator=draw)}
    expert = {tensor: value + 0.1 * torch.randn(value.shape, generator=draw) for tensor, value in base.items()}
    opened = Checkpoint(write_tensors(root / "base", base)), Checkpoint(write_tensors(root / "expert", expert))
    for name in CODECS:
        compress(root / name, opened, name)
    return opened[0], root


@QUICK
@given(st.sampled_from(list(CODECS)), st.data())
def test_no_damage_is_a_crash(
    tmp_path_factory: pytest.TempPathFactory, small: tuple[Checkpoint, Path], name: str, data: st.DataObject
) -> None:
    """Bytes changed anywhere: the folder is refused, or it is read and every tensor is made, or refused by then."""
    base, root = small
    path = tmp_path_factory.mktemp("harmed") / name
    shutil.copytree(root / name, path)
    file = path / data.draw(st.sampled_from([PAYLOAD, RECORD]))
    content = bytearray(file.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    file.write_bytes(content)
    try:
        for tensor, packed in read(path).tensors.items():
            if packed.shape == base.tensor(tensor).shape:
                assert packed.expert(base.tensor(tensor)).shape == packed.shape
    except InvalidModel:
        pass
