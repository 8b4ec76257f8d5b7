"""What a merge can be written as, and the settings of each form. No torch here: a service refuses before it queues."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from merging.codecs.catalog import CODECS
from merging.errors import InvalidStudy

LORA, FULL = "lora", "full"
FORMS = (FULL, LORA, *CODECS)
_OF_LORA, _MOST_RANK = ("energy", "rank"), 1 << 20


class Form(NamedTuple):
    """What a merge is written as: one of `FORMS`, with those of its settings that differ from its defaults."""

    name: str = FULL
    settings: Mapping[str, float] = MappingProxyType({})


def check_form(form: Form, key: str = "form", of: str = "--set") -> None:
    """See that there is such a form and that it has such settings.

    Args:
        key, of: where the form and its settings stand, for messages.

    Raises:
        InvalidStudy: there is none, or a setting is unknown or out of its range.
    """
    if form.name not in FORMS:
        remedy = f"use one of {', '.join(FORMS)}"
        raise InvalidStudy(key, form.name, "is none that a merge can be written in", remedy)
    if form.name in CODECS:
        CODECS[form.name].checked(form.settings, of)
    elif form.name == LORA:
        _check_lora(form.settings, of)
    elif form.settings:
        raise InvalidStudy(of, next(iter(form.settings)), "is no setting of a full checkpoint", "leave it out")


def form_of(content: Mapping[str, Any]) -> Form:
    """What the content of an export job asks for; those of earlier versions are full checkpoints."""
    return Form(content.get("as", FULL), content.get("settings", {}))


def parsed(settings: Sequence[str]) -> dict[str, float]:
    """`name=value` each as numbers by name.

    Raises:
        InvalidStudy: one is something else.
    """
    found = {}
    for each in settings:
        name, _, value = each.partition("=")
        try:
            found[name] = float(value)
        except ValueError as error:
            raise InvalidStudy("--set", each, "is not name=number", "write e.g. --set density=0.1") from error
    return found


def _check_lora(settings: Mapping[str, float], of: str) -> None:
    for name, value in settings.items():
        if name not in _OF_LORA:
            remedy = f"its settings: {', '.join(_OF_LORA)}"
            raise InvalidStudy(f"{of}.{name}", value, "is no setting of lora", remedy)
        if name == "energy" and not 0.0 < value <= 1.0:
            raise InvalidStudy(f"{of}.{name}", value, "is out of range", "use a share in (0, 1]")
        if name == "rank" and not (1 <= value <= _MOST_RANK and float(value).is_integer()):
            raise InvalidStudy(f"{of}.{name}", value, "is out of range", f"use a whole number from 1 to {_MOST_RANK}")
