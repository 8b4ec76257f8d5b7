"""delta.json: what a compressed expert is, beside the bytes of its tensors. No torch here."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from merging.errors import InvalidModel

SCHEMA: Literal["mergesearch/delta/v1"] = "mergesearch/delta/v1"
RECORD = "delta.json"
_AGAIN = "copy or download the folder again"
Natural = Annotated[int, Field(ge=0)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Stored(_Strict):
    """One tensor.

    Attributes:
        codec: the form it is in: a codec, `whole` or `same`.
        shape: of the expert's tensor.
        numbers: what is not in its payload.
    """

    codec: str
    shape: tuple[Natural, ...]
    numbers: dict[str, int | FiniteFloat]


class Record(_Strict):
    """The file.

    Attributes:
        codec, settings: what the expert was packed by.
        base: the base's content fingerprint: on another base the expert would be another model.
        parameters, bytes_, bits_per_parameter: of all tensors together.
        tensors: by name, sorted.
    """

    schema_: Literal["mergesearch/delta/v1"] = Field(alias="schema")
    codec: str
    settings: dict[str, int | FiniteFloat]
    base: str
    parameters: Natural
    bytes_: Natural = Field(alias="bytes")
    bits_per_parameter: FiniteFloat
    tensors: dict[str, Stored]

    def to_json(self) -> bytes:
        """The file's content, one line a tensor's field."""
        return self.model_dump_json(by_alias=True, indent=1).encode() + b"\n"


class _Versioned(BaseModel):
    schema_: str = Field(alias="schema")


def read_record(folder: Path, key: str) -> Record:
    """The record in a compressed expert's folder.

    Args:
        key: where the folder is named, for messages.

    Raises:
        InvalidModel: it is missing, of an unknown version, or damaged.
    """
    path = folder / RECORD
    if not path.exists():
        problem = f"has no {RECORD}" if folder.is_dir() else "is no folder" if folder.exists() else "does not exist"
        raise InvalidModel(key, str(folder), problem, "give the folder of a compressed expert")
    try:
        content = path.read_bytes()
        version = _Versioned.model_validate_json(content).schema_
        if version != SCHEMA:
            problem = f"is of the version {version!r}, not {SCHEMA!r}"
            raise InvalidModel(key, str(path), problem, "compress the expert again with this version of mergesearch")
        return Record.model_validate_json(content)
    except OSError as error:
        raise InvalidModel(key, str(path), f"cannot be read ({error.strerror})", _AGAIN) from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise InvalidModel(key, str(path), f"is damaged ({where}: {first['msg']})", _AGAIN) from error
