"""Rules by parts of names: whatever is asked, every name ends with its value."""

from hypothesis import given, settings
from hypothesis import strategies as st

from merging.mergekit.cover import cover, inside, suffix

NAMES = st.text("ab.", min_size=1, max_size=6)


@settings(derandomize=True, database=None, deadline=None, max_examples=100)
@given(
    st.dictionaries(NAMES, st.integers(0, 2), min_size=1, max_size=8), st.integers(0, 2), st.lists(NAMES, max_size=4)
)
def test_the_first_rule_that_fits_gives_every_name_its_value(
    wanted: dict[str, int], otherwise: int, texts: list[str]
) -> None:
    rules = cover(wanted, dict.fromkeys(wanted, otherwise), texts)
    found = {name: next((value for text, value in rules if text in name), otherwise) for name in wanted}
    assert found == wanted


def test_a_text_that_says_it_in_one_rule_is_used() -> None:
    wanted = {"m.0.mlp.up": 1, "m.0.mlp.down": 1, "m.0.attn.q": 0}
    assert cover(wanted, dict.fromkeys(wanted, 0), ["mlp"]) == [("mlp", 1)]


def test_nothing_is_said_where_all_have_the_usual_value() -> None:
    assert cover({"a": 1, "b": 1}, {"a": 1, "b": 1}, ["a"]) == []


def test_a_name_inside_its_layer_is_what_follows_the_first_number() -> None:
    assert suffix("model.layers.11.mlp.experts.3.w1.weight") == "mlp.experts.3.w1.weight"
    assert suffix("h.0.attn.bias") == "attn.bias" and suffix("lm_head.weight") == "lm_head.weight"
    assert inside(["h.0.a", "h.1.a", "h.1.long"]) == [".long", ".a"]
