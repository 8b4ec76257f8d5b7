"""Every codec, declared once: what it is, whether it loses anything, its settings with defaults and allowed ranges.

Nothing here imports torch; a row names its code as `module:object`, loaded on first use by `implementation`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from merging.errors import InvalidStudy


@dataclass(frozen=True)
class Setting:
    """One number that says how a codec packs.

    Attributes:
        default: its value where nothing is said.
        minimum, maximum: the values that make sense at all; anything else is refused.
        choices: the only values there are; empty: all of the range.
        whole: whether it is an integer.
    """

    name: str
    doc: str
    default: float
    minimum: float = 0.0
    maximum: float = 1.0
    choices: tuple[float, ...] = ()
    whole: bool = False

    def check(self, value: object, key: str) -> float:
        """The value.

        Raises:
            InvalidStudy: it is no number, or none that makes sense here.
        """
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise InvalidStudy(key, value, "is not a number", f"use a number, e.g. {self.default:g}")
        if self.choices:
            if value not in self.choices:
                raise InvalidStudy(key, value, "is not a choice", f"use {' or '.join(f'{c:g}' for c in self.choices)}")
        elif not self.minimum <= value <= self.maximum:
            raise InvalidStudy(key, value, "is out of range", f"use a value in [{self.minimum:g}, {self.maximum:g}]")
        elif self.whole and not float(value).is_integer():
            raise InvalidStudy(key, value, "is not a whole number", f"use a whole number, e.g. {self.default:g}")
        return value


@dataclass(frozen=True)
class Row:
    """One codec.

    Attributes:
        summary: what it keeps of a delta, a clause without a full stop.
        lossless: whether the expert comes back bit for bit.
        code: `module:object` of a `merging.codecs.contract.Codec`.
        paper: where it comes from, a URL.
        roles: the kinds of tensor that it packs, in words; the rest is kept whole.
    """

    name: str
    summary: str
    lossless: bool
    code: str
    paper: str
    roles: str
    settings: tuple[Setting, ...] = ()

    def checked(self, given: Mapping[str, object], key: str = "settings") -> dict[str, float]:
        """Every setting of the codec: as given, else its default.

        Raises:
            InvalidStudy: one is unknown, or has a value that makes no sense.
        """
        known = {setting.name: setting for setting in self.settings}
        for name, value in given.items():
            if name not in known:
                remedy = f"its settings: {', '.join(known) or 'none'}"
                raise InvalidStudy(f"{key}.{name}", value, f"is no setting of {self.name}", remedy)
        return {n: each.check(given.get(n, each.default), f"{key}.{n}") for n, each in known.items()}


_DENSITY = Setting("density", "share of each delta's elements that is kept, largest first", 0.1, 1e-6, 1.0)
_BITS = "bits of each number that is kept: 16 (bfloat16) or 32"
_MATRICES = "matrices and stacks of them"
_ALL_BUT_VECTORS = "all but vectors"

CODECS: Mapping[str, Row] = {
    row.name: row
    for row in (
        Row(
            "bitdelta",
            "one bit an element, its sign, and one scale a matrix or a row",
            False,
            "merging.codecs.bitdelta:bitdelta",
            "https://arxiv.org/abs/2402.10193",
            _MATRICES,
            (Setting("rows", "1: one scale a row instead of one a matrix", 0, choices=(0, 1)),),
        ),
        Row(
            "compeft",
            "the signs of the largest elements, all of one magnitude",
            False,
            "merging.codecs.compeft:compeft",
            "https://arxiv.org/abs/2311.13171",
            _ALL_BUT_VECTORS,
            (
                _DENSITY,
                Setting(
                    "scale", "α of the magnitude α σ; 0: the mean of what is kept, which errs least", 0, 0.0, 100.0
                ),
            ),
        ),
        Row(
            "sparse",
            "the largest elements as they are",
            False,
            "merging.codecs.sparse:sparse",
            "https://arxiv.org/abs/2110.07560",
            _ALL_BUT_VECTORS,
            (_DENSITY, Setting("bits", _BITS, 16, choices=(16, 32))),
        ),
        Row(
            "lowrank",
            "the first directions of the singular value decomposition",
            False,
            "merging.codecs.lowrank:lowrank",
            "https://arxiv.org/abs/2106.09685",
            _MATRICES + ", where that is smaller",
            (
                Setting("energy", "share of the delta's squared norm that the rank is chosen to keep", 0.95, 1e-3, 1.0),
                Setting("rank", "the highest rank; 0: no limit", 0, 0, 1 << 16, whole=True),
                Setting("bits", _BITS, 16, choices=(16, 32)),
            ),
        ),
        Row(
            "xor",
            "every bit, those that fine-tuning left alone deflated",
            True,
            "merging.codecs.xor:xor",
            "https://arxiv.org/abs/2411.05239",
            "all",
        ),
    )
}
_UNPACKED = {"whole": "merging.codecs.whole:whole", "same": "merging.codecs.whole:same"}
FORMS: Mapping[str, str] = {name: row.code for name, row in CODECS.items()} | _UNPACKED
"""What a tensor may be stored as, with the code that has its `unpack`: every codec, `whole` and `same`."""


def codec(name: str, key: str = "codec") -> Row:
    """The catalog's row.

    Raises:
        InvalidStudy: there is no such codec.
    """
    if name not in CODECS:
        raise InvalidStudy(key, name, "is not a codec", f"use one of {', '.join(CODECS)}")
    return CODECS[name]


def implementation(form: str) -> Any:
    """The code of a form (imports torch): a `merging.codecs.contract.Codec`; `whole` and `same` only unpack."""
    module, _, name = FORMS[form].partition(":")
    return getattr(import_module(module), name)
