"""mergekit's YAML: read into a recipe, and written from one where mergekit can express it.

`read` and `write` take and give the parsed YAML; files and folders are opened by the caller. docs/mergekit.md lists
what is read and every intended difference.
"""

from merging.mergekit.reader import read
from merging.mergekit.writer import write

__all__ = ["read", "write"]
