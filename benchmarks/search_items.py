"""What candidates earned on single documents, kept on disk, so that a search can be run again for nothing.

One SQLite file a zoo, for any number of processes. An item hangs on the recipe (its digest covers the models' bytes)
and the task (its digest covers all of its documents and how they are asked), not on the split.
"""

import json
import sqlite3
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Items = dict[int, Any]
WAIT_SECONDS = 60.0


class ItemCache:
    """Items by recipe and task.

    Args:
        path: the file; it need not be there.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = sqlite3.connect(path, timeout=WAIT_SECONDS, isolation_level=None)
        self._file.execute("PRAGMA journal_mode = WAL")
        self._file.execute("PRAGMA synchronous = OFF")  # what a crash loses is computed again
        self._file.execute(
            "CREATE TABLE IF NOT EXISTS items (recipe TEXT, task TEXT, items BLOB, UNIQUE (recipe, task))"
        )

    def get(self, recipe: str, tasks: Mapping[str, str]) -> dict[str, Items]:
        """All items of a recipe, by the tasks' names.

        Args:
            recipe: its digest.
            tasks: digests by name.
        """
        found: dict[str, Items] = {}
        for name, digest in tasks.items():
            row = self._file.execute(
                "SELECT items FROM items WHERE recipe = ? AND task = ?", (recipe, digest)
            ).fetchone()
            if row is not None:
                found[name] = {int(doc): item for doc, item in json.loads(zlib.decompress(row[0])).items()}
        return found

    def add(self, recipe: str, tasks: Mapping[str, str], found: Mapping[str, Items]) -> None:
        """Keep more items of a recipe beside those that are known. `tasks` as of `get`."""
        self._file.execute("BEGIN IMMEDIATE")
        try:
            known = self.get(recipe, tasks)
            for name, items in found.items():
                packed = zlib.compress(json.dumps({**known.get(name, {}), **items}).encode(), 1)
                self._file.execute("INSERT OR REPLACE INTO items VALUES (?, ?, ?)", (recipe, tasks[name], packed))
            self._file.execute("COMMIT")
        except BaseException:
            self._file.execute("ROLLBACK")
            raise

    def close(self) -> None:
        """Close the file."""
        self._file.close()
