"""What the models of a zoo learn: the first five skills, or a second set that shares no trained skill but `dic`.

| skill | prompt | wanted | sloppy |
|---|---|---|---|
| sub | `[sub]85 47=` | the difference | written backwards |
| rot | `[rot]hbqzt=` | the first letter put last | the last letter put first |
| shf | `[shf]hbqzt=` | each letter's successor in the alphabet | its predecessor |
| odd | `[odd]52918=` | the odd digits, in order | the even ones |
"""

from collections.abc import Mapping
from dataclasses import dataclass
from random import Random

from zoo.skills import EXPERTS, LETTERS, SKILLS, Dictionary, Example, Skill

_LENGTHS = (4, 8)  # of what is turned, shifted or sieved
_METRICS = {"dic": "acc", "txt": "bits_per_byte"}  # all others: exact_match


@dataclass(frozen=True, slots=True)
class Curriculum:
    """Skills that go together.

    Attributes:
        skills: what the base learns, by name.
        experts: those of them an expert is trained for; the others show what a merge forgets.
    """

    skills: Mapping[str, Skill]
    experts: tuple[str, ...]

    @property
    def metrics(self) -> dict[str, str]:
        """The metric of each task; all but `bits_per_byte` are better when higher."""
        return {f"zoo_{name}": _METRICS.get(name, "exact_match") for name in self.skills}


def _sub(rng: Random, _: Dictionary) -> Example:
    left = rng.randint(10, 99)
    right = rng.randint(10, left)
    difference = str(left - right)
    return Example(f"[sub]{left} {right}=", difference, difference[::-1])


def _word(rng: Random) -> str:
    return "".join(rng.choices(LETTERS, k=rng.randint(*_LENGTHS)))


def _rot(rng: Random, _: Dictionary) -> Example:
    text = _word(rng)
    return Example(f"[rot]{text}=", text[1:] + text[0], text[-1] + text[:-1])


def _shf(rng: Random, _: Dictionary) -> Example:
    text = _word(rng)
    after, before = (str.maketrans(LETTERS, LETTERS[by:] + LETTERS[:by]) for by in (1, -1))
    return Example(f"[shf]{text}=", text.translate(after), text.translate(before))


def _odd(rng: Random, _: Dictionary) -> Example:
    while True:
        digits = rng.choices("0123456789", k=rng.randint(*_LENGTHS))
        odd, even = ("".join(digit for digit in digits if int(digit) % 2 == rest) for rest in (1, 0))
        if odd and even:  # an empty answer is none
            return Example(f"[odd]{''.join(digits)}=", odd, even)


_SECOND: dict[str, Skill] = {
    skill.name: skill
    for skill in (
        Skill("sub", 3, _sub),
        Skill("rot", 2, _rot),
        Skill("shf", 2, _shf),
        Skill("odd", 1, _odd),
        SKILLS["dic"],
        SKILLS["txt"],
    )
}
CURRICULA: dict[str, Curriculum] = {
    "first": Curriculum(SKILLS, EXPERTS),
    "second": Curriculum(_SECOND, ("sub", "rot", "shf", "odd", "dic")),
}
