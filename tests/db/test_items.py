"""Per-document results survive storage exactly, and right-or-wrong ones take a bit each."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from db import items

NUMBER = st.floats(allow_nan=False)


@given(
    st.one_of(
        st.lists(st.sampled_from([0.0, 1.0]), max_size=300),
        st.lists(NUMBER),
        st.lists(st.lists(NUMBER, min_size=2, max_size=2)),
        st.lists(st.one_of(st.text(), st.integers(), st.booleans(), NUMBER)),
    )
)
def test_decoding_gives_back_what_was_encoded(given_items: list[Any]) -> None:
    found = items.decode(items.encode(given_items))
    assert list(found) == given_items
    assert [type(x) for x in found] == [type(x) for x in given_items]


@pytest.mark.parametrize(("content", "size"), [([1.0, 0.0] * 500, 130), ([0.25] * 1000, 8001)])
def test_storage_is_small(content: list[float], size: int) -> None:
    assert len(items.encode(content)) <= size
