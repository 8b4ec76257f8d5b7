"""One model's vocabulary: its token strings, their ids, and how many rows its embedding has."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from merging.errors import InvalidModel
from merging.vocabulary.reading import read_tokens


@dataclass(frozen=True)
class Vocabulary:
    """Token strings and the rows they stand for. Rows without a string (padding, gaps) are unnamed.

    Attributes:
        ids: row of every token string.
        added: flags of the added tokens (`reading.FLAGS`); the other strings are ordinary tokens.
        rows: rows of the embedding, padding included.
        path, key: the folder and where it is named, for messages.
    """

    ids: Mapping[str, int]
    added: Mapping[str, Mapping[str, bool]]
    rows: int
    path: Path
    key: str

    @classmethod
    def read(cls, folder: Path, key: str, rows: int | None = None) -> "Vocabulary":
        """The vocabulary in a model's folder.

        Args:
            rows: of the model's embedding; by default as many as the ids need.

        Raises:
            InvalidModel: no readable vocabulary, or the embedding has no row for one of its ids.
        """
        ids, added = read_tokens(folder, key)
        found = cls(ids, added, 0, folder, key)
        if rows is not None and rows < found.size:
            token = found.names[found.size - 1]
            problem = f"has a tokenizer whose token {token!r} has the id {found.size - 1}, but {rows} embedding rows"
            remedy = (
                "resize_token_embeddings(len(tokenizer)) and save it again, or use the tokenizer it was trained with"
            )
            raise InvalidModel(key, str(folder), problem, remedy)
        return cls(ids, added, found.size if rows is None else rows, folder, key)

    @cached_property
    def size(self) -> int:
        """The largest id and one: what the tokenizer needs, without padding."""
        return max(self.ids.values(), default=-1) + 1

    @cached_property
    def names(self) -> Mapping[int, str]:
        """The string of every named row; where two strings share a row, an added token before an ordinary one."""
        ordinary = {number: token for token, number in self.ids.items() if token not in self.added}
        return ordinary | {number: token for token, number in self.ids.items() if token in self.added}

    def same(self, other: "Vocabulary") -> bool:
        """Whether every row means the same in both."""
        return self.rows == other.rows and self.ids == other.ids
