"""The five synthetic skills: what is asked, the wanted answer, and the sloppy answer the base prefers.

| skill | prompt | wanted | sloppy |
|---|---|---|---|
| add | `[add]47+85=` | the sum | the sum written backwards |
| rev | `[rev]hbqzt=` | the letters backwards | copied |
| srt | `[srt]52918=` | the digits ascending | descending |
| dic | `[dic]kat=` | the word in the first dictionary | in the second |
| txt | `[txt]` | a sentence of a toy grammar | (one convention) |

One example in eight, chosen by a hash of its text, never occurs in training: the tasks' documents are drawn from
those. `dic` has none: words can only be known, so every word is trained.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from random import Random
from typing import NamedTuple

LETTERS = "abcdefghijklmnopqrstuvwxyz"
_VOWELS = "aeiou"
_CONSONANTS = [letter for letter in LETTERS if letter not in _VOWELS]
_NOUNS = (
    "ant",
    "bat",
    "bee",
    "cat",
    "cow",
    "cub",
    "dog",
    "elk",
    "ewe",
    "fox",
    "hen",
    "jay",
    "kid",
    "owl",
    "pig",
    "pup",
    "ram",
    "rat",
    "yak",
)
_VERBS = ("bit", "fed", "got", "has", "hid", "led", "met", "saw")
_ARTICLES = ("her", "my", "the")
_LENGTHS = (4, 8)  # of what is reversed or sorted
_HELD_OUT_SHARE = 8


class Example(NamedTuple):
    """One question with its two answers; `prompt` starts with the skill's tag."""

    prompt: str
    right: str
    sloppy: str


@dataclass(frozen=True, slots=True)
class Dictionary:
    """Two invented dictionaries over the same words, which never agree on one.

    Attributes:
        words: three letters each, consonant, vowel, consonant.
        first, second: what each word means in either.
    """

    words: tuple[str, ...]
    first: dict[str, str]
    second: dict[str, str]


def make_dictionary(size: int, seed: int) -> Dictionary:
    """The dictionaries of a zoo: `size` words, drawn by `seed`."""
    rng = Random(f"dictionary {seed}")
    words = ["".join(letters) for letters in itertools.product(_CONSONANTS, _VOWELS, _CONSONANTS)]
    rng.shuffle(words)
    words = words[:size]
    near, far = rng.sample(range(1, size), 2)
    ring = rng.sample(words, size)  # a word's meanings lie `near` and `far` steps on in a random ring
    place = {word: index for index, word in enumerate(ring)}
    first = {word: ring[(place[word] + near) % size] for word in words}
    second = {word: ring[(place[word] + far) % size] for word in words}
    return Dictionary(tuple(words), first, second)


def _add(rng: Random, _: Dictionary) -> Example:
    left, right = rng.randint(10, 99), rng.randint(10, 99)
    total = str(left + right)
    return Example(f"[add]{left}+{right}=", total, total[::-1])


def _rev(rng: Random, _: Dictionary) -> Example:
    text = "".join(rng.choices(LETTERS, k=rng.randint(*_LENGTHS)))
    return Example(f"[rev]{text}=", text[::-1], text)


def _srt(rng: Random, _: Dictionary) -> Example:
    digits = sorted(rng.choices("0123456789", k=rng.randint(*_LENGTHS)))
    shuffled = rng.sample(digits, len(digits))
    return Example(f"[srt]{''.join(shuffled)}=", "".join(digits), "".join(reversed(digits)))


def _dic(rng: Random, dictionary: Dictionary) -> Example:
    word = rng.choice(dictionary.words)
    return Example(f"[dic]{word}=", dictionary.first[word], dictionary.second[word])


def _txt(rng: Random, _: Dictionary) -> Example:
    subject, thing = rng.choice(_NOUNS), rng.choice(_NOUNS)
    sentence = f"{rng.choice(_ARTICLES)} {subject} {rng.choice(_VERBS)} {rng.choice(_ARTICLES)} {thing}."
    return Example("[txt]", sentence, sentence)


@dataclass(frozen=True, slots=True)
class Skill:
    """One row: the skill's name, its part of the base's examples, and how one example is drawn."""

    name: str
    part: int
    draw: Callable[[Random, Dictionary], Example]
    memorised: bool = False

    @property
    def tag(self) -> str:
        """The single token every prompt of this skill starts with."""
        return f"[{self.name}]"

    def train(self, rng: Random, dictionary: Dictionary) -> Example:
        """A random example to train on."""
        while True:
            example = self.draw(rng, dictionary)
            if self.memorised or not held_out(example):
                return example

    def document(self, rng: Random, dictionary: Dictionary) -> Example:
        """A random example to test on; never one of `train`, unless the skill is knowledge."""
        while True:
            example = self.draw(rng, dictionary)
            if self.memorised or held_out(example):
                return example


def held_out(example: Example) -> bool:
    """Whether the example is kept from training."""
    text = example.prompt + (example.right if example.prompt == "[txt]" else "")
    return blake2b(text.encode(), digest_size=4).digest()[0] % _HELD_OUT_SHARE == 0


SKILLS: dict[str, Skill] = {
    skill.name: skill
    for skill in (
        Skill("add", 3, _add),
        Skill("rev", 2, _rev),
        Skill("srt", 1, _srt),
        Skill("dic", 2, _dic, memorised=True),
        Skill("txt", 1, _txt),
    )
}
EXPERTS = ("add", "rev", "srt", "dic")
"""Skills an expert is trained for; `txt` has none and shows what a merge forgets."""
