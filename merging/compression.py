"""That experts are taken as a codec keeps them: a frozen record of recipes and studies. No torch here."""

from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator

from merging.codecs.catalog import codec


class Compression(BaseModel):
    """The codec that every full checkpoint among the experts is packed by; in a file also its bare name.

    Attributes:
        settings: those that differ from the codec's defaults; `checked` names all of them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    codec: str
    settings: dict[str, float] = {}

    @model_validator(mode="before")
    @classmethod
    def _bare_name(cls, value: Any) -> Any:
        return {"codec": value} if isinstance(value, str) else value

    @property
    def lossless(self) -> bool:
        """Whether the experts come back bit for bit."""
        return codec(self.codec).lossless

    def checked(self, key: str) -> "Compression":
        """The same with every setting of the codec.

        Args:
            key: where it is written, for messages.

        Raises:
            InvalidStudy: there is no such codec or setting, or its value makes no sense.
        """
        row = codec(self.codec, f"{key}.codec")
        return Compression(codec=self.codec, settings=row.checked(dict(self.settings), f"{key}.settings"))
