"""The rows of the catalog agree with the code, load no torch, and refuse settings that make no sense."""

import subprocess
import sys
from pathlib import Path

import pytest

from merging.codecs.catalog import CODECS, FORMS, codec, implementation
from merging.errors import InvalidStudy

ROOT = Path(__file__).parents[3]


def test_no_torch_is_loaded() -> None:
    code = "import sys, merging.codecs.catalog, merging.codecs.record; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "False\n"


def test_every_form_has_code() -> None:
    assert all(hasattr(implementation(form), "unpack") for form in FORMS)
    assert all(hasattr(implementation(name), "pack") for name in CODECS)
    assert [name for name, row in CODECS.items() if row.lossless] == ["xor"]


@pytest.mark.parametrize("name", CODECS)
def test_defaults_make_sense_and_what_is_given_wins(name: str) -> None:
    row = codec(name)
    defaults = {setting.name: setting.default for setting in row.settings}
    assert row.checked({}) == defaults == row.checked(defaults)
    for setting in row.settings:
        other = setting.choices[-1] if setting.choices else setting.maximum
        assert row.checked({setting.name: other}) == defaults | {setting.name: other}


def test_an_unknown_codec_names_the_known() -> None:
    with pytest.raises(
        InvalidStudy, match=r"^x.codec: 'zip' is not a codec; use one of bitdelta, compeft, sparse, lowr"
    ):
        codec("zip", "x.codec")


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("compeft", {"densty": 0.1}, r"s.densty: 0.1 is no setting of compeft; its settings: density, scale"),
        ("xor", {"level": 9}, r"s.level: 9 is no setting of xor; its settings: none"),
        ("compeft", {"density": 0.0}, r"s.density: 0.0 is out of range; use a value in \[1e-06, 1\]"),
        ("compeft", {"density": 1.1}, "out of range"),
        ("compeft", {"scale": float("nan")}, "out of range"),
        ("sparse", {"bits": 8}, r"s.bits: 8 is not a choice; use 16 or 32"),
        ("bitdelta", {"rows": 0.5}, r"is not a choice; use 0 or 1"),
        ("lowrank", {"rank": 1.5}, r"s.rank: 1.5 is not a whole number; use a whole number, e.g. 0"),
        ("lowrank", {"rank": -1}, "out of range"),
        ("lowrank", {"energy": "high"}, r"s.energy: 'high' is not a number; use a number, e.g. 0.95"),
        ("bitdelta", {"rows": True}, "is not a number"),
    ],
)
def test_settings_that_make_no_sense_are_refused(name: str, given: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidStudy, match=message):
        codec(name).checked(given, "s")
