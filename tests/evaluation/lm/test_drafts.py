"""Guesses from earlier answers: which one, how much of it, and how many are kept."""

from evaluation.lm.drafts import Drafts


def test_the_answer_given_last_is_guessed_first() -> None:
    drafts = Drafts()
    assert drafts.guess("q", [], 9) == []
    for answer in ([1, 2, 3], [1, 4], [1, 2, 3]):
        drafts.learn("q", answer)
    assert drafts.guess("q", [], 9) == [1, 2, 3]
    drafts.learn("q", [1, 4])
    assert drafts.guess("q", [], 9) == [1, 4]
    assert drafts.guess("other", [], 9) == []


def test_only_what_began_the_same_way_goes_on() -> None:
    drafts = Drafts()
    drafts.learn("q", [1, 2, 3])
    drafts.learn("q", [1, 4, 5, 6])
    assert drafts.guess("q", [1, 2], 9) == [3]
    assert drafts.guess("q", [1], 9) == [4, 5, 6]
    assert drafts.guess("q", [1], 2) == [4, 5]
    assert drafts.guess("q", [2], 9) == []
    assert drafts.guess("q", [1, 2, 3], 9) == []


def test_four_distinct_answers_are_kept() -> None:
    drafts = Drafts()
    for last in [0, 1, 2, 3, 4, 4, 4]:
        drafts.learn("q", [7, last])
    assert [bool(drafts.guess("q", [7, last][:1], 1)) for last in [4]] == [True]
    kept = []
    for _ in range(6):
        kept.append(drafts.guess("q", [7], 1)[0])
        drafts.learn("q", [7, min(set(range(1, 5)) - set(kept), default=4)])
    assert 0 not in kept


def test_wrong_guesses_become_short_and_right_ones_long_again() -> None:
    drafts = Drafts()
    drafts.learn("q", list(range(100)))
    for _ in range(300):
        drafts.judge(len(drafts.guess("q", [], 100)), 0)
    assert len(drafts.guess("q", [], 100)) < 5
    for _ in range(300):
        guessed = len(drafts.guess("q", [], 100))
        drafts.judge(guessed, guessed)
    assert len(drafts.guess("q", [], 100)) == 100


def test_memory_is_bounded_and_what_was_learnt_longest_ago_goes() -> None:
    drafts = Drafts(most_tokens=30)
    for name in "abcd":
        drafts.learn(name, [1] * 10)
    assert [bool(drafts.guess(name, [], 9)) for name in "abcd"] == [False, True, True, True]
    drafts.learn("b", [2] * 15)
    assert [bool(drafts.guess(name, [], 9)) for name in "bcd"] == [True, False, False]
    drafts.learn("e", [3] * 50)
    assert drafts.guess("e", [], 99) == [3] * 50
