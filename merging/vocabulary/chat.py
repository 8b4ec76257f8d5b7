"""The chat templates of a model's folder: in files of their own, or inside tokenizer_config.json."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from merging.companions import companions
from merging.errors import InvalidRecipe
from merging.vocabulary.reading import SETTINGS, read_json

FIELD = "chat_template"


@dataclass(frozen=True)
class Templates:
    """What one folder has.

    Attributes:
        files: content of the template files, by their place in the folder.
        field: what tokenizer_config.json says, None if nothing: a text, or a list of named texts.
    """

    files: Mapping[str, bytes]
    field: Any

    @property
    def texts(self) -> dict[str, str]:
        """The templates by name, wherever they are stored: what two folders must agree in."""
        field = self.field if isinstance(self.field, list) else [{"name": "default", "template": self.field}]
        found = {str(row.get("name")): str(row["template"]) for row in field if row.get("template")}
        for place, content in self.files.items():
            found["default" if Path(place).stem == FIELD else Path(place).stem] = content.decode(errors="replace")
        return found


def templates(folder: Path, key: str) -> Templates:
    """The chat templates of a folder.

    Raises:
        InvalidModel: its tokenizer_config.json cannot be read.
    """
    files = {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in companions(folder)
        if path.name.startswith(FIELD) or path.parent != folder
    }
    return Templates(files, read_json(folder / SETTINGS, key).get(FIELD))


def lent(base: Templates, experts: Mapping[str, Templates], key: str) -> Templates | None:
    """The templates that a union takes from an expert; None where it has the base's, or none has any.

    Raises:
        InvalidRecipe: the base has none and the experts' differ.
    """
    owners = sorted(name for name, each in experts.items() if each.texts)
    if base.texts or not owners:
        return None
    for name in owners[1:]:
        if experts[name].texts != experts[owners[0]].texts:
            problem = f"leaves the chat template open: {owners[0]} and {name} have different ones and the base has none"
            raise InvalidRecipe(key, "union", problem, "name the expert whose tokenizer and chat template to keep")
    return experts[owners[0]]
