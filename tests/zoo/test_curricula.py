"""The second set of skills: right answers, its own tags, and nothing of the first zoos changed by it."""

from random import Random

import pytest

from zoo.curricula import CURRICULA
from zoo.presets import PRESETS
from zoo.skills import LETTERS, held_out, make_dictionary
from zoo.tasks import METRICS
from zoo.tokenizer import VOCABULARY, encode, vocabulary_of

SECOND = CURRICULA["second"]
WORDS = make_dictionary(100, 0)


def test_answers_are_right() -> None:
    rng = Random(0)
    for _ in range(50):
        question, right, sloppy = SECOND.skills["sub"].document(rng, WORDS)
        left, other = question.removeprefix("[sub]").removesuffix("=").split(" ")
        assert int(right) == int(left) - int(other) and sloppy == right[::-1]
        question, right, sloppy = SECOND.skills["rot"].document(rng, WORDS)
        text = question[5:-1]
        assert right[-1] + right[:-1] == text == sloppy[1:] + sloppy[0]
        question, right, sloppy = SECOND.skills["shf"].document(rng, WORDS)
        moved = [(LETTERS.index(b) - LETTERS.index(a)) % 26 for a, b in zip(question[5:-1], right, strict=True)]
        back = [(LETTERS.index(a) - LETTERS.index(b)) % 26 for a, b in zip(question[5:-1], sloppy, strict=True)]
        assert set(moved) == set(back) == {1}
        question, right, sloppy = SECOND.skills["odd"].document(rng, WORDS)
        assert right and sloppy and sorted(right + sloppy) == sorted(question[5:-1])
        assert not set(right) & set("02468") and not set(sloppy) & set("13579")


@pytest.mark.parametrize("name", SECOND.experts)
def test_documents_are_kept_from_training_where_a_skill_is_no_knowledge(name: str) -> None:
    skill, rng = SECOND.skills[name], Random(1)
    assert skill.memorised or not any(held_out(skill.train(rng, WORDS)) for _ in range(500))
    assert skill.memorised or all(held_out(skill.document(rng, WORDS)) for _ in range(50))


def test_every_skill_has_a_token_and_everything_it_says_is_in_the_vocabulary() -> None:
    vocabulary, rng = vocabulary_of(SECOND.skills.values()), Random(2)
    for skill in SECOND.skills.values():
        example = skill.train(rng, WORDS)
        ids = encode(example.prompt, vocabulary)
        assert ids[0] == vocabulary[skill.tag] and encode(example.right, vocabulary)


def test_the_first_zoos_are_what_they_were() -> None:
    assert CURRICULA["first"].metrics == METRICS
    assert "curriculum" not in PRESETS["tiny"].identity and PRESETS["broad"].identity["curriculum"] == "second"
    assert [VOCABULARY[tag] for tag in ("[add]", "[rev]", "[srt]", "[dic]", "[txt]")] == [4, 5, 6, 7, 8]
    assert len(VOCABULARY) == 50
