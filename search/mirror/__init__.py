"""A copy of every study in Optuna's own schema, for `optuna-dashboard` and `optuna.load_study`.

It is written after our own commit and can be rebuilt from our rows at any time; nothing is ever read from it
to decide anything.
"""

from search.mirror.copy import Mirror
from search.mirror.place import dashboard, mirror_url, open_mirror, prepare_mirror

__all__ = ["Mirror", "dashboard", "mirror_url", "open_mirror", "prepare_mirror"]
