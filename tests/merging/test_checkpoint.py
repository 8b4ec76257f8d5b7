"""Folders are read as transformers wrote them; every way a folder can be bad has its own message."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from merging.checkpoint import INDEX, SINGLE, Checkpoint
from merging.errors import InvalidModel
from tests.merging.factories import tiny_llama

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("whole")
    tiny_llama().save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("shards")
    tiny_llama().save_pretrained(path, max_shard_size="40KB")
    return path


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", ["40KB", "1GB"])
def test_reads_what_transformers_wrote(tmp_path: Path, dtype: torch.dtype, size: str) -> None:
    model = tiny_llama(dtype=dtype)
    model.save_pretrained(tmp_path, max_shard_size=size)
    checkpoint = Checkpoint(tmp_path)
    state = model.state_dict()
    assert set(checkpoint.names) == set(state)
    for name in checkpoint.names:
        assert checkpoint.entry(name).dtype == dtype
        assert torch.equal(checkpoint.tensor(name), state[name])
    assert (len(checkpoint.shards) > 1) == (size == "40KB")
    assert sorted(e.name for _, entries in checkpoint.files() for e in entries) == list(checkpoint.names)


def test_writing_to_a_tensor_leaves_the_file_alone(folder: Path) -> None:
    before = (folder / SINGLE).read_bytes()
    Checkpoint(folder).tensor("model.norm.weight").zero_()
    assert (folder / SINGLE).read_bytes() == before


def test_odd_tensors(tmp_path: Path) -> None:
    tensors = {
        "scalar": torch.tensor(2.5),
        "empty": torch.empty(0, 3),
        "flags": torch.tensor([True, False]),
        "counts": torch.arange(3),
        "wide": torch.ones(2, dtype=torch.float64),
    }
    save_file(tensors, tmp_path / SINGLE)
    (tmp_path / "config.json").write_text("{}")
    checkpoint = Checkpoint(tmp_path)
    for name, tensor in tensors.items():
        assert torch.equal(checkpoint.tensor(name), tensor)
    assert len(checkpoint.fingerprint()) == 32


def test_fingerprint_is_of_the_contents_alone(folder: Path, shards: Path, tmp_path: Path) -> None:
    whole = Checkpoint(folder).fingerprint()
    assert Checkpoint(shards).fingerprint() == whole
    for seed, dtype in ((1, torch.float32), (0, torch.bfloat16)):
        tiny_llama(seed, dtype=dtype).save_pretrained(tmp_path / str(dtype))
        assert Checkpoint(tmp_path / str(dtype)).fingerprint() != whole


def test_fingerprint_cache_follows_the_files(folder: Path, tmp_path: Path) -> None:
    class Cache(dict[str, str]):
        def put(self, key: str, fingerprint: str) -> None:
            self[key] = fingerprint

    cache, copy = Cache(), tmp_path / "copy"
    shutil.copytree(folder, copy)
    first = Checkpoint(copy).fingerprint(cache)
    assert list(cache.values()) == [first]
    cache[next(iter(cache))] = "remembered"
    assert Checkpoint(copy).fingerprint(cache) == "remembered"
    save_file(load_file(copy / SINGLE), copy / SINGLE)
    assert Checkpoint(copy).fingerprint(cache) == first


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", DTYPES)
def test_non_finite_weights_are_refused(tmp_path: Path, value: float, dtype: torch.dtype) -> None:
    model = tiny_llama(dtype=dtype)
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[3, 4] = value
    model.save_pretrained(tmp_path)
    with pytest.raises(
        InvalidModel, match=r"NaN or infinity in tensor model.layers.1.mlp.up_proj.weight; use a"
    ) as info:
        Checkpoint(tmp_path, "models.experts[0]").fingerprint()
    assert str(info.value).startswith(f"models.experts[0]: {str(tmp_path)!r} ")


def test_large_but_finite_weights_are_accepted(tmp_path: Path) -> None:
    save_file({"w": torch.full((8,), 3e38), "h": torch.full((64,), 6e4, dtype=torch.float16)}, tmp_path / SINGLE)
    (tmp_path / "config.json").write_text("{}")
    Checkpoint(tmp_path).fingerprint()


def with_head(folder: Path, change: float, flag: bool | None) -> Path:
    """Makes a tied checkpoint store its head too, as some tools do."""
    tiny_llama(tied=True).save_pretrained(folder)
    tensors = load_file(folder / SINGLE)
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"] + change
    save_file(tensors, folder / SINGLE, {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config["tie_word_embeddings"] = flag
    (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not None}))
    return folder


@pytest.mark.parametrize("flag", [True, None])
def test_a_stored_tied_head_is_left_out(tmp_path: Path, flag: bool | None) -> None:
    checkpoint = Checkpoint(with_head(tmp_path / "both", 0.0, flag))
    assert checkpoint.tied == {"lm_head.weight": "model.embed_tokens.weight"}
    assert "lm_head.weight" not in checkpoint.names
    tiny_llama(tied=True).save_pretrained(tmp_path / "one")
    assert checkpoint.fingerprint() == Checkpoint(tmp_path / "one").fingerprint()


@pytest.mark.parametrize("flag", [False, None])
def test_an_untied_head_is_kept(tmp_path: Path, flag: bool | None) -> None:
    assert "lm_head.weight" in Checkpoint(with_head(tmp_path, 0.5, flag)).names


def test_a_tied_head_that_differs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        InvalidModel, match=r"m: .* lm_head.weight differs from .*embed_tokens.weight; set tie_word_emb"
    ):
        Checkpoint(with_head(tmp_path, 0.5, True), "m")


@pytest.mark.parametrize(("kind", "refused"), [("llama", True), ("t5", False)])
def test_a_config_that_always_says_tied_is_not_believed(tmp_path: Path, kind: str, refused: bool) -> None:
    save_file({"shared.weight": torch.ones(3, 2), "lm_head.weight": torch.zeros(3, 2)}, tmp_path / SINGLE)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind, "tie_word_embeddings": True}))
    if refused:
        with pytest.raises(InvalidModel, match=r"lm_head.weight differs from shared.weight"):
            Checkpoint(tmp_path)
    else:
        assert Checkpoint(tmp_path).names == ("lm_head.weight", "shared.weight")


@pytest.mark.parametrize("flag", [True, False])
def test_a_heads_bias_under_two_names_counts_once_where_it_is_tied(tmp_path: Path, flag: bool) -> None:
    names = ("cls.predictions.bias", "cls.predictions.decoder.bias", "other.decoder.bias")
    save_file({name: torch.ones(3) for name in names}, tmp_path / SINGLE)
    (tmp_path / "config.json").write_text(json.dumps({"tie_word_embeddings": flag}))
    checkpoint = Checkpoint(tmp_path)
    assert checkpoint.tied == ({names[1]: names[0]} if flag else {})
    assert not checkpoint.ties_head


def test_buffers_that_models_compute_are_left_out(tmp_path: Path) -> None:
    names = {"h.0.attn.bias": (1, 1, 4, 4), "h.0.attn.masked_bias": (), "a.rotary_emb.inv_freq": (4,), "h.0.w": (2,)}
    save_file({name: torch.ones(shape) for name, shape in names.items()}, tmp_path / SINGLE)
    (tmp_path / "config.json").write_text("{}")
    assert Checkpoint(tmp_path).names == ("h.0.w",)


def remove(path: Path) -> None:
    shutil.rmtree(path)


def only_pickle(path: Path) -> None:
    (path / SINGLE).unlink()
    (path / "pytorch_model.bin").write_bytes(b"not read")


def adapter(path: Path) -> None:
    shutil.rmtree(path)
    path.mkdir()
    (path / "adapter_config.json").write_text("{}")
    (path / "adapter_model.safetensors").write_bytes(b"not read")


def cut(count: int) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        content = (path / SINGLE).read_bytes()
        (path / SINGLE).write_bytes(content[:count])

    return change


def header(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def rewrite(path: Path) -> None:
        content = (path / SINGLE).read_bytes()
        length = int.from_bytes(content[:8], "little")
        rows = json.loads(content[8 : 8 + length])
        change(rows)
        text = json.dumps(rows).encode()
        (path / SINGLE).write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])

    return rewrite


def garbage(path: Path) -> None:
    content = bytearray((path / SINGLE).read_bytes())
    content[8:40] = b"\xff" * 32
    (path / SINGLE).write_bytes(content)


def config(text: str) -> Callable[[Path], object]:
    return lambda path: (path / "config.json").write_text(text)


NORM = "model.norm.weight"
BAD: list[tuple[Callable[[Path], object], str, str]] = [  # what is done to the folder, problem, remedy
    (remove, "does not exist", "give the folder"),
    (lambda path: (path / "config.json").unlink(), "has no config.json", "give the folder that save_pretrained"),
    (config("{"), "cannot be read", "again"),
    (config("[]"), "is not a JSON object", "again"),
    (config('{"quantization_config": {"bits": 4}}'), "is quantised", "full-precision"),
    (only_pickle, "is a pickle checkpoint (pytorch_model.bin)", "convert it to safetensors"),
    (lambda path: (path / SINGLE).unlink(), "holds no weights", "give a folder with safetensors"),
    (adapter, "is a LoRA adapter", "merge_and_unload"),
    (cut(-1), "is truncated", "copy or download the file again"),
    (cut(100), "is truncated or no safetensors file", "copy or download the file again"),
    (cut(3), "is truncated or no safetensors file", "copy or download the file again"),
    (garbage, "corrupted safetensors header", "copy or download the file again"),
    (header(lambda rows: rows.pop(NORM)), "has bytes that belong to no tensor", "again"),
    (header(lambda rows: rows.pop("lm_head.weight")), "overlaps another or leaves a gap", "again"),
    (header(lambda rows: rows[NORM].update(shape=[31])), f"tensor {NORM} has 128 bytes", "again"),
    (header(lambda rows: rows[NORM].update(shape=[-32])), "impossible shape", "again"),
    (header(lambda rows: rows[NORM].update(dtype="F8_E4M3")), "number format F8_E4M3, which cannot be merged", "again"),
    (header(lambda rows: rows[NORM].pop("data_offsets")), "corrupted safetensors header", "again"),
]


@pytest.mark.parametrize(("harm", "problem", "remedy"), BAD)
def test_bad_folders(harm: Callable[[Path], object], problem: str, remedy: str, folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "model"
    shutil.copytree(folder, path)
    harm(path)
    with pytest.raises(InvalidModel) as info:
        Checkpoint(path, "models.base")
    message = str(info.value)
    assert message.startswith(f"models.base: '{path}")
    assert problem in message and remedy in message.split("; ", 1)[1]


def test_a_file_is_no_folder(folder: Path) -> None:
    with pytest.raises(InvalidModel, match="is a file, not a folder; give the folder"):
        Checkpoint(folder / SINGLE)


def test_missing_shard_is_named(shards: Path, tmp_path: Path) -> None:
    path = tmp_path / "model"
    shutil.copytree(shards, path)
    lost = sorted(path.glob("model-00002*"))[0]
    lost.unlink()
    with pytest.raises(
        InvalidModel, match=f"m: .* misses the shard {lost.name} that its index names; copy or download"
    ):
        Checkpoint(path, "m")


def test_tensor_missing_from_its_shard_is_named(shards: Path, tmp_path: Path) -> None:
    path = tmp_path / "model"
    shutil.copytree(shards, path)
    index = json.loads((path / INDEX).read_text())
    file = index["weight_map"][NORM]
    save_file({k: v for k, v in load_file(path / file).items() if k != NORM}, path / file)
    with pytest.raises(InvalidModel, match=f"misses the tensor {NORM} that its index places in {file}; copy"):
        Checkpoint(path, "m")


@pytest.mark.parametrize("weights", [None, [], {"w": "../outside.safetensors"}, {"w": 3}])
def test_index_that_is_unusable_or_leads_outside(tmp_path: Path, weights: object) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": weights}))
    with pytest.raises(InvalidModel, match="has no usable weight_map; copy or download"):
        Checkpoint(tmp_path, "m")
