"""Rows of differing vocabularies come together by token string, and none is lost unless the user chose so."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from merging.errors import InvalidModel, InvalidRecipe
from merging.vocabulary.alignment import Alignment, make_alignment
from merging.vocabulary.tokens import Vocabulary
from tests.merging.vocabulary.makers import vocabulary

QUICK = settings(derandomize=True, database=None, deadline=None, max_examples=30)
LETTERS = "abcdefgh"


def found(choice: str, base: Vocabulary, **experts: Vocabulary) -> Alignment:
    alignment = make_alignment(choice, base, experts)
    assert alignment is not None
    return alignment


@st.composite
def a_vocabulary(draw: st.DrawFn) -> Vocabulary:
    """The letters and some tokens of its own, in any order, with gaps and padding."""
    own = draw(st.lists(st.sampled_from(["<u>", "<v>", "<w>", "<x>"]), unique=True))
    tokens = [*LETTERS, *own]
    places = draw(st.permutations(range(len(tokens) + draw(st.integers(0, 3)))))
    rows = max(places) + 1 + draw(st.integers(0, 4))
    return vocabulary(dict(zip(tokens, places, strict=False)), rows, added=own)


@pytest.mark.parametrize("choice", ["base", "union", "x"])
def test_equal_vocabularies_need_no_alignment(choice: str) -> None:
    assert make_alignment(choice, vocabulary("abc", 4), {"x": vocabulary({"c": 2, "a": 0, "b": 1}, 4)}) is None


def test_another_number_of_padding_rows_needs_one() -> None:
    alignment = found("base", vocabulary("abc", 4), x=vocabulary("abc", 8))
    assert alignment.rows == 4
    assert alignment.base.tolist() == [0, 1, 2, 3] and alignment.experts["x"].tolist() == [0, 1, 2, -1]


def test_the_same_string_under_different_ids_is_the_same_token() -> None:
    alignment = found("base", vocabulary("abc"), x=vocabulary("cab"))
    assert alignment.experts["x"].tolist() == [1, 2, 0] and alignment.base.tolist() == [0, 1, 2]


def test_a_token_that_took_padding_is_no_padding() -> None:
    """Two experts put their own token into the base's first padding row: a union keeps both."""
    base = vocabulary("abcd", 8)
    x, y = (vocabulary([*"abcd", own], 8, added=[own]) for own in ("<x>", "<y>"))
    alignment = found("union", base, x=x, y=y)
    assert alignment.rows == 8
    assert [(each.token, each.id, each.owner) for each in alignment.added] == [("<x>", 4, "x"), ("<y>", 5, "y")]
    assert alignment.base.tolist() == [0, 1, 2, 3, -1, -1, 6, 7]
    assert alignment.experts["x"].tolist() == [0, 1, 2, 3, 4, -1, -1, -1]
    assert alignment.experts["y"].tolist() == [0, 1, 2, 3, -1, 4, -1, -1]
    assert found("base", base, x=x, y=y).experts["x"].tolist() == [0, 1, 2, 3, -1, -1, -1, -1]


def test_an_expert_like_the_base_follows_it_in_padding_too() -> None:
    alignment = found("base", vocabulary("abc", 5), x=vocabulary("abc", 5), y=vocabulary("cba"))
    assert alignment.experts["x"].tolist() == [0, 1, 2, 3, 4]


def test_an_experts_vocabulary_keeps_its_places_and_the_bases_padding() -> None:
    alignment = found("x", vocabulary("abc", 6), x=vocabulary({"c": 0, "<x>": 1, "b": 3}, 5, added=["<x>"]))
    assert alignment.rows == 5 and alignment.tokens == {"c": 0, "<x>": 1, "b": 3}
    assert alignment.base.tolist() == [2, -1, 5, 1, 4], (
        "row 2 is a token of the base, so its last padding row stands in"
    )
    assert alignment.experts["x"].tolist() == [0, 1, -1, 3, -1]


def test_without_padding_in_the_base_the_experts_own_is_kept() -> None:
    alignment = found("x", vocabulary("abc"), x=vocabulary("abc", 4))
    assert alignment.base.tolist() == [0, 1, 2, -1] and alignment.experts["x"].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("tokens", "rows", "more", "expected"),
    [(100, 128, 28, 128), (100, 128, 29, 256), (90, 96, 8, 128), (100, 100, 1, 101), (100, 101, 2, 102)],
)
def test_a_union_is_padded_as_the_base_is(tokens: int, rows: int, more: int, expected: int) -> None:
    words, own = [f"t{i}" for i in range(tokens)], [f"<{i}>" for i in range(more)]
    alignment = found("union", vocabulary(words, rows), x=vocabulary([*words, *own], added=own))
    assert alignment.rows == expected
    if expected > tokens + more:
        assert alignment.base[-1] == rows - 1, "new padding repeats the base's last padding row"


def test_new_tokens_come_in_the_order_of_names_whatever_the_study_lists_first() -> None:
    x, y = (
        vocabulary([*"abcd", "<2>", "<1>"], added=["<2>", "<1>"]),
        vocabulary([*"abcd", "<0>", "<1>"], added=["<0>", "<1>"]),
    )
    one, two = (
        make_alignment("union", vocabulary("abcd"), experts) for experts in ({"x": x, "y": y}, {"y": y, "x": x})
    )
    assert one is not None and two is not None and one.added == two.added
    assert [each.token for each in one.added] == ["<2>", "<1>", "<0>"]


def test_a_few_ordinary_tokens_become_added_ones_and_many_are_refused() -> None:
    words = [f"t{i}" for i in range(100)]
    few = found("union", vocabulary(words), x=vocabulary([*words, "one", "two", "three"]))
    assert [each.token for each in few.added] == ["one", "two", "three"]
    assert few.added[0].flags["single_word"] and not few.added[0].flags["special"]
    with pytest.raises(InvalidModel, match=r"4 ordinary tokens.*tokenizer: x, or tokenizer: base"):
        make_alignment("union", vocabulary(words), {"x": vocabulary([*words, "one", "two", "three", "four"])})


def test_a_tokenizer_of_another_kind_is_refused() -> None:
    with pytest.raises(InvalidModel, match="shares only 1 of 3 tokens with the base"):
        make_alignment("base", vocabulary("abcd"), {"x": vocabulary("ayz")})


def test_an_unknown_choice_is_refused() -> None:
    with pytest.raises(InvalidRecipe, match=r"tokenizer: 'z' is no expert; use base, union, x"):
        make_alignment("z", vocabulary("ab"), {"x": vocabulary("ab")})


def test_ids_move_with_their_strings() -> None:
    alignment = found("x", vocabulary([*"abc", "<gone>"]), x=vocabulary("bca"))
    assert [alignment.moved(i) for i in (0, 1, 2, 3, -1, 99)] == [2, 0, 1, None, -1, 99]


def test_the_fingerprint_tells_orders_apart_and_names_not() -> None:
    one, two = (found("base", vocabulary("abc"), x=vocabulary(order)).fingerprints() for order in ("bca", "cab"))
    assert one["base"] == two["base"] and one["expert:x"] != two["expert:x"]
    renamed = found("base", vocabulary("abc"), other=vocabulary("bca")).fingerprints()
    assert renamed["expert:other"] == one["expert:x"]


@QUICK
@given(a_vocabulary(), a_vocabulary(), a_vocabulary(), st.sampled_from(["base", "union", "x", "y"]))
def test_every_named_row_comes_from_the_row_of_that_name(
    base: Vocabulary, x: Vocabulary, y: Vocabulary, choice: str
) -> None:
    alignment = make_alignment(choice, base, {"x": x, "y": y})
    if alignment is None:
        return
    for token, row in alignment.tokens.items():
        assert alignment.base[row] == base.ids.get(token, -1)
        assert alignment.experts["x"][row] == x.ids.get(token, -1)
        assert alignment.experts["y"][row] == y.ids.get(token, -1)
    kept = {"base": set(base.ids), "x": set(x.ids), "y": set(y.ids), "union": {*base.ids, *x.ids, *y.ids}}
    assert set(alignment.tokens) == kept[choice]
    assert all(len(index) == alignment.rows for index in (alignment.base, *alignment.experts.values()))
    unnamed = [row for row in range(alignment.rows) if row not in alignment.tokens.values()]
    assert not set(alignment.base[unnamed].tolist()) & set(base.ids.values()), "padding is never a token's row"
    if choice in ("base", "union"):
        assert torch.equal(alignment.base[: base.size], torch.arange(base.size)), "the base's ids do not move"
