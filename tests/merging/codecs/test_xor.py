"""Every bit comes back, of every dtype; small deltas take less than the tensor; damage is told."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from merging.codecs.catalog import implementation
from merging.codecs.size import bits_per_parameter
from merging.codecs.xor import Xored
from merging.errors import InvalidModel
from tests.merging.codecs.planted import DTYPES, QUICK, pack, pair, reread

WIDE = (*DTYPES, torch.float64)


def same_bits(one: Tensor, other: Tensor) -> bool:
    raw = (each.contiguous().flatten().view(torch.uint8) for each in (one, other))
    return one.dtype == other.dtype and one.shape == other.shape and torch.equal(*raw)


@pytest.mark.parametrize("dtype", WIDE)
def test_every_bit_comes_back(dtype: torch.dtype) -> None:
    base, expert = pair(30, 41, dtype=dtype)
    expert[0, :3] = torch.tensor([-0.0, 0.0, torch.finfo(dtype).tiny / 2])
    base[0, :2] = torch.tensor([0.0, -0.0])
    packed = reread("xor", pack("xor", base, expert))
    assert same_bits(packed.expert(base), expert)
    assert len(packed.payload) == dtype.itemsize


@QUICK
@given(
    st.binary(max_size=96),
    st.binary(max_size=96),
    st.sampled_from(WIDE),
    st.sampled_from(WIDE),
    st.sampled_from([1, 2]),
)
def test_any_bits_come_back(one: bytes, other: bytes, dtype: torch.dtype, other_dtype: torch.dtype, rows: int) -> None:
    count = min(len(one) // dtype.itemsize, len(other) // other_dtype.itemsize) // rows * rows
    expert, base = (
        torch.tensor(list(data[: count * kind.itemsize]), dtype=torch.uint8).view(kind).view(rows, count // rows)
        for data, kind in ((one, dtype), (other, other_dtype))
    )
    assert same_bits(reread("xor", pack("xor", base, expert)).expert(base), expert)


@pytest.mark.parametrize("shape", [(), (1,), (0,), (2, 0, 3), (2, 3, 4)])
def test_any_shape_comes_back(shape: tuple[int, ...]) -> None:
    base, expert = pair(*shape, dtype=torch.bfloat16)
    assert same_bits(reread("xor", pack("xor", base, expert, "vector")).expert(base), expert)


def test_a_view_of_another_order_comes_back() -> None:
    base, expert = (each.mT for each in pair(12, 31))
    assert same_bits(pack("xor", base, expert).expert(base), expert)


@pytest.mark.parametrize(("size", "most"), [(1e-5, 2.0), (1e-4, 5.0), (1e-3, 9.0)])
def test_small_deltas_of_bfloat16_take_fewer_bits_than_it_has(size: float, most: float) -> None:
    packed = pack("xor", *pair(400, 500, size=size, dtype=torch.bfloat16))
    assert bits_per_parameter([packed]) < most


def test_what_cannot_be_deflated_takes_no_more_than_it_has() -> None:
    _, expert = pair(100, 100)
    noise = torch.randint(0, 256, (40_000,), generator=torch.Generator().manual_seed(3), dtype=torch.uint8)
    packed = pack("xor", noise.view(torch.float32).view(100, 100), expert)
    assert bits_per_parameter([packed]) <= 32


def test_an_expert_of_another_dtype_than_the_base_keeps_its_own() -> None:
    base, expert = pair(40, 50)[0], pair(40, 50)[1].to(torch.bfloat16)
    packed = pack("xor", base, expert)
    assert same_bits(packed.expert(base), expert) and bits_per_parameter([packed]) < 16


@pytest.mark.parametrize(
    ("harm", "problem"),
    [
        (lambda plane: plane[:-3], "500 bytes were packed"),
        (lambda plane: torch.cat([plane[:9], 255 - plane[9:]]), "zlib|Error"),
        (lambda plane: plane[:0], "500 bytes were packed"),
    ],
)
def test_a_damaged_plane_is_told(harm: object, problem: str) -> None:
    base, expert = pair(20, 25, dtype=torch.bfloat16)
    packed = pack("xor", base, expert)
    assert callable(harm)
    broken = Xored(packed.shape, packed.dtype, (packed.planes[0], harm(packed.planes[1])))
    with pytest.raises(InvalidModel, match=f"payload: 'plane1' cannot be inflated .*({problem}).*; copy or download"):
        broken.expert(base)


def test_a_plane_of_another_tensor_is_told() -> None:
    base, expert = pair(20, 25, dtype=torch.bfloat16)
    short, long = pack("xor", base[:10], expert[:10]), pack("xor", base, expert)
    for mine, theirs, size in ((long, short, 500), (short, long, 250)):
        with pytest.raises(InvalidModel, match=f"{size} bytes were packed"):
            Xored(mine.shape, mine.dtype, (mine.planes[0], theirs.planes[1])).expert(torch.zeros(mine.shape))


@pytest.mark.parametrize(
    ("payload", "dtype", "problem"),
    [
        ({"plane0": torch.ones(7, dtype=torch.uint8)}, 1, "plane0 has the shape"),
        ({"plane0": torch.ones(2)}, 1, "plane0 is of torch.float32"),
        ({"plane2": torch.ones(2, dtype=torch.uint8)}, 1, "has the part plane2"),
        ({}, 2, "misses the part plane2"),
        ({}, 4, "dtype is 4"),
        ({}, 1.0, "dtype is 1.0"),
        ({}, None, "misses the number dtype"),
    ],
)
def test_planes_that_do_not_fit_are_refused(payload: dict[str, Tensor], dtype: float | None, problem: str) -> None:
    planes = {"plane0": torch.ones(6, dtype=torch.uint8), "plane1": torch.ones(2, dtype=torch.uint8)}
    with pytest.raises(ValueError, match=problem):
        implementation("xor").unpack((2, 3), planes | payload, {} if dtype is None else {"dtype": dtype})
