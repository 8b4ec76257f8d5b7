"""What every codec obeys: what is stored means the same, nothing given is changed, equal inputs give equal bits."""

from typing import Any

import pytest
import torch
from torch import Tensor

from merging.codecs.catalog import CODECS, FORMS, implementation
from merging.codecs.contract import Packed
from merging.codecs.size import bits_per_parameter, payload_bytes
from merging.codecs.whole import Same, Whole
from tests.merging.codecs.planted import DTYPES, error, pack, pair, reread

SETTINGS: dict[str, dict[str, float]] = {"lowrank": {"rank": 4}}  # noise has no low rank of its own
EACH_CODEC = pytest.mark.parametrize("name", CODECS)


def packed_pair(name: str, dtype: torch.dtype = torch.float32, other: torch.dtype | None = None) -> Any:
    base, expert = pair(32, 48, dtype=dtype)
    expert = expert.to(other or dtype)
    return base, expert, pack(name, base, expert, "matrix", **SETTINGS.get(name, {}))


@EACH_CODEC
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("other", DTYPES)
def test_what_was_stored_means_the_same(name: str, dtype: torch.dtype, other: torch.dtype) -> None:
    base, expert, packed = packed_pair(name, dtype, other)
    made = packed.expert(base)
    assert packed.shape == (32, 48) == made.shape
    assert made.dtype == (other if CODECS[name].lossless else torch.float32) and made.is_contiguous()
    assert torch.equal(reread(name, packed).expert(base), made)
    if CODECS[name].lossless:
        assert torch.equal(made, expert)
    else:
        assert 0.0 < error(expert, base, packed) < 0.99


@EACH_CODEC
def test_nothing_given_is_changed(name: str) -> None:
    base, expert, packed = packed_pair(name)
    before = [tensor.clone() for tensor in (base, expert, *packed.payload.values())]
    packed.expert(base)
    assert all(map(torch.equal, before, (base, expert, *packed.payload.values())))


@EACH_CODEC
def test_equal_inputs_give_equal_bits(name: str) -> None:
    one, other = packed_pair(name)[2], packed_pair(name)[2]
    assert one.numbers == other.numbers and one.payload.keys() == other.payload.keys()
    assert all(torch.equal(part, other.payload[key]) for key, part in one.payload.items())


@EACH_CODEC
def test_all_of_the_payload_moves_and_nothing_else_matters(name: str) -> None:
    base, _, packed = packed_pair(name)
    moved = []

    def move(tensor: Tensor) -> Tensor:
        moved.append(tensor.clone())
        return moved[-1]

    there = packed.moved(move)
    assert {id(part) for part in there.payload.values()} == {id(part) for part in moved}
    assert there.numbers == packed.numbers and torch.equal(there.expert(base), packed.expert(base))


@EACH_CODEC
def test_a_base_of_another_shape_is_refused(name: str) -> None:
    _, _, packed = packed_pair(name)
    for shape in [(48, 32), (1, 48), (16, 48), (32 * 48,)]:
        with pytest.raises(ValueError, match=r"the base has the shape .*, the packed tensor \[32, 48\]"):
            packed.expert(torch.zeros(shape))


@EACH_CODEC
def test_parts_and_numbers_must_be_those_of_the_codec(name: str) -> None:
    _, _, packed = packed_pair(name)
    code, payload, numbers = implementation(name), dict(packed.payload), dict(packed.numbers)
    for part in payload:
        with pytest.raises(ValueError, match=f"misses the part {part}"):
            code.unpack(packed.shape, {key: value for key, value in payload.items() if key != part}, numbers)
        with pytest.raises(ValueError, match=f"{part} (has the shape|is of)"):
            code.unpack(packed.shape, payload | {part: torch.ones(3, 5, dtype=torch.int16)}, numbers)
    for number in numbers:
        with pytest.raises(ValueError, match=f"misses the number {number}"):
            code.unpack(packed.shape, payload, {key: value for key, value in numbers.items() if key != number})
        with pytest.raises(ValueError, match=f"{number} is "):
            code.unpack(packed.shape, payload, numbers | {number: -1})
    with pytest.raises(ValueError, match="has the part more, which means nothing here"):
        code.unpack(packed.shape, payload | {"more": torch.ones(1)}, numbers)
    with pytest.raises(ValueError, match="has the number more"):
        code.unpack(packed.shape, payload, numbers | {"more": 1})


@EACH_CODEC
def test_a_shape_that_the_payload_does_not_fill_is_refused(name: str) -> None:
    _, _, packed = packed_pair(name)
    with pytest.raises(ValueError):
        implementation(name).unpack((3, 4), packed.payload, packed.numbers)


def test_whole_and_same() -> None:
    base, expert = pair(3, 4, dtype=torch.bfloat16)
    for packed in (Whole(expert), Same((3, 4))):
        form = "whole" if isinstance(packed, Whole) else "same"
        assert torch.equal(reread(form, packed).expert(base), expert if form == "whole" else base)
        assert packed.moved(torch.clone).shape == (3, 4)
        assert set(FORMS) == {*CODECS, "whole", "same"}
    with pytest.raises(ValueError, match=r"tensor has the shape \[3, 4\], not \[4, 3\]"):
        implementation("whole").unpack((4, 3), {"tensor": expert}, {})
    with pytest.raises(ValueError, match="the base has the shape"):
        Same((4, 3)).expert(base)


def test_bits_are_counted_over_all_tensors_together() -> None:
    some: list[Packed] = [Whole(torch.ones(3)), Whole(torch.ones(5, dtype=torch.int8)), Same((8,))]
    assert [payload_bytes(each) for each in some] == [12, 5, 0]
    assert bits_per_parameter(some) == 8 * 17 / 16
    assert bits_per_parameter([]) == 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@EACH_CODEC
def test_a_device_makes_the_same_expert(name: str) -> None:
    base, _, packed = packed_pair(name)
    there = packed.moved(lambda tensor: tensor.cuda()).expert(base.cuda())
    assert there.is_cuda
    torch.testing.assert_close(there.cpu(), packed.expert(base), rtol=1e-6, atol=1e-7)
