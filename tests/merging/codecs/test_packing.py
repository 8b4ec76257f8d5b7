"""Every tensor of an expert goes into the form that its role, its dtype and its change ask for."""

from pathlib import Path

import pytest
import torch

from merging.checkpoint import Checkpoint
from merging.codecs.catalog import CODECS
from merging.codecs.packing import pack_expert
from merging.codecs.size import bits_per_parameter
from merging.errors import InvalidModel, InvalidStudy
from tests.merging.codecs.planted import pair
from tests.merging.factories import write_models, write_tensors

UP, NORM, EMBEDDING = "model.layers.0.mlp.up_proj.weight", "model.norm.weight", "model.embed_tokens.weight"
Tensors = dict[str, torch.Tensor]


def opened(root: Path, base: Tensors, expert: Tensors) -> tuple[Checkpoint, Checkpoint]:
    return Checkpoint(write_tensors(root / "base", base), "b"), Checkpoint(write_tensors(root / "expert", expert), "e")


def forms(base: Checkpoint, expert: Checkpoint, name: str) -> dict[str, str]:
    return {tensor: form for tensor, form, _ in pack_expert(base, expert, name, {})}


@pytest.fixture(scope="module")
def llamas(tmp_path_factory: pytest.TempPathFactory) -> tuple[Checkpoint, Checkpoint]:
    base, experts = write_models(tmp_path_factory.mktemp("models"), experts=1)
    return Checkpoint(base), Checkpoint(experts["add"])


@pytest.mark.parametrize(
    ("name", "matrix", "norm", "embedding"),
    [
        ("bitdelta", "bitdelta", "whole", "whole"),
        ("compeft", "compeft", "whole", "compeft"),
        ("sparse", "sparse", "whole", "sparse"),
        ("lowrank", "lowrank", "whole", "whole"),
        ("xor", "xor", "xor", "xor"),
    ],
)
def test_roles(llamas: tuple[Checkpoint, Checkpoint], name: str, matrix: str, norm: str, embedding: str) -> None:
    found = forms(*llamas, name)
    assert list(found) == list(llamas[0].names)
    assert (found[UP], found[NORM], found[EMBEDDING]) == (matrix, norm, embedding)


@pytest.mark.parametrize("name", CODECS)
def test_every_tensor_comes_back_in_shape_and_near(llamas: tuple[Checkpoint, Checkpoint], name: str) -> None:
    base, expert = llamas
    packed = {tensor: each for tensor, _, each in pack_expert(base, expert, name, {})}
    for tensor, each in packed.items():
        made, wanted, start = each.expert(base.tensor(tensor)), expert.tensor(tensor), base.tensor(tensor)
        assert made.shape == wanted.shape
        if CODECS[name].lossless:
            assert torch.equal(made, wanted)
        assert float((made - wanted).norm()) <= float((start - wanted).norm())
    assert bits_per_parameter(packed.values()) <= 32


def test_what_is_unchanged_is_the_bases(tmp_path: Path) -> None:
    weight, other = pair(8, 8)
    base = {"a.weight": weight, "b.weight": weight.bfloat16(), "c.weight": weight * 0.0, "n": torch.arange(3)}
    expert = {
        "a.weight": weight,
        "b.weight": weight.bfloat16().float(),
        "c.weight": weight * -0.0,
        "n": torch.arange(3),
    }
    lossy, lossless = (forms(*opened(tmp_path, base, expert), name) for name in ("bitdelta", "xor"))
    assert lossy == {"a.weight": "same", "b.weight": "same", "c.weight": "bitdelta", "n": "same"}
    assert lossless == {"a.weight": "same", "b.weight": "xor", "c.weight": "xor", "n": "same"}
    assert forms(*opened(tmp_path / "2", base, expert | {"a.weight": other}), "xor")["a.weight"] == "xor"


def test_integers_flags_and_other_shapes_stay_whole(tmp_path: Path) -> None:
    flags = torch.tensor([True, False])
    base = {"n": torch.arange(3), "flags": flags, "wide.weight": torch.ones(3, 4), "mixed": torch.ones(2)}
    expert = {"n": torch.arange(3) + 1, "flags": ~flags, "wide.weight": torch.ones(5, 4), "mixed": torch.arange(2)}
    for name in CODECS:
        assert set(forms(*opened(tmp_path / name, base, expert), name).values()) == {"whole"}


def test_stacks_are_packed(tmp_path: Path) -> None:
    base, expert = pair(3, 8, 8)
    name = "model.layers.0.mlp.experts.gate_up_proj"
    assert forms(*opened(tmp_path, {name: base}, {name: expert}), "bitdelta") == {name: "bitdelta"}


@pytest.mark.parametrize("where", [0, 1])
def test_what_is_not_finite_is_refused(tmp_path: Path, where: int) -> None:
    tensors = pair(4, 4)
    tensors[where][1, 2] = float("nan")
    models = opened(tmp_path, {"a.weight": tensors[0]}, {"a.weight": tensors[1]})
    with pytest.raises(InvalidModel, match=f"^{'be'[where]}: .* has NaN or infinity in tensor a.weight; use a checkp"):
        list(pack_expert(*models, "compeft", {}))


def test_other_tensors_than_the_bases_are_refused_at_once(tmp_path: Path) -> None:
    one, two = {"a": torch.ones(2)}, {"a": torch.ones(2), "b": torch.ones(2)}
    for name, (base, expert), problem in (
        ("more", (one, two), "has b, which the base lacks"),
        ("less", (two, one), "lacks the base's tensor b"),
    ):
        with pytest.raises(InvalidModel, match=f"^e: .* {problem}; use a fine-tune of this base"):
            pack_expert(*opened(tmp_path / name, base, expert), "xor", {})


def test_codec_and_settings_are_checked_at_once(llamas: tuple[Checkpoint, Checkpoint]) -> None:
    with pytest.raises(InvalidStudy, match="is not a codec"):
        pack_expert(*llamas, "gzip", {})
    with pytest.raises(InvalidStudy, match=r"settings\.density: 2 is out of range"):
        pack_expert(*llamas, "compeft", {"density": 2})
