"""The study file's `models`: which models are merged, and in how much memory. No torch here."""

from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ByteSize,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    field_validator,
)
from pydantic_core import PydanticCustomError

from merging.compression import Compression
from search.ingredients import EXPERT_NAME, Policy, named

_BYTES: TypeAdapter[int] = TypeAdapter(ByteSize)


def _bytes(value: Any) -> int:
    try:
        if (
            isinstance(value, int | float | str)
            and not isinstance(value, bool)
            and (found := _BYTES.validate_python(value))
        ):
            return found
    except ValidationError:
        pass
    raise PydanticCustomError("memory", "Input should be bytes, or a size such as 24GiB")


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class ExpertSpec(_Frozen):
    """One expert; in the file also a bare path, whose last part is then the name.

    Attributes:
        policy: the ingredient policy that found it; None: it was listed by its path.
        order: the training step that it was saved at, where the policy knows it.
    """

    path: str = Field(min_length=1)
    name: Annotated[str, Field(min_length=1, max_length=100, pattern=EXPERT_NAME)]
    policy: Policy | None = None
    order: Annotated[int, Field(ge=0)] | None = None


class ModelsSpec(_Frozen):
    """The models: folders, relative to the study file or absolute.

    Attributes:
        experts: methods that go by an order take this one. In the file, an entry may stand for several:
            `search.ingredients`.
        tokenizer: whose vocabulary the merges have: `base`, `union`, or an expert's name.
        memory: bytes that base and experts may take while they wait for builds; experts that need more are compressed.
        compress: what packs them: where `memory` says so, without it always. None: where it says so, by `bitdelta`.
    """

    base: str = Field(min_length=1)
    experts: tuple[ExpertSpec, ...] = Field(min_length=1)
    tokenizer: str = "base"
    memory: Annotated[int, BeforeValidator(_bytes)] | None = None
    compress: Compression | None = None

    @field_validator("experts", mode="before")
    @classmethod
    def _name_bare_paths(cls, value: Any) -> Any:
        if not isinstance(value, list | tuple):
            return value
        return [named(expert) for expert in value]
