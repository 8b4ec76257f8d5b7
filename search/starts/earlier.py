"""The best recipes of earlier studies over the same base, as starts of a new one.

Scores of two studies do not compare: they are of other documents. So no study is taken to be better than another; those
that had the same tasks come first, then those that came to an end, then the newest.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from db.records import Study, Trial
from db.store import Store
from merging.errors import InvalidRecipe
from search.space import Space
from search.starts.given import EARLIER, Given, as_recipe, named, over
from search.starts.start import is_baseline

MOST = 3
EACH = 2
"""Recipes of one study: its best two are often all but the same."""
_LOOKED_AT = 8  # of a study's best trials: some are baselines, or of experts that are not here


def best_of_earlier(store: Store, space: Space, setup: Mapping[str, Any], known: Collection[str]) -> dict[str, Given]:
    """The recipes to begin with, by origin, the most promising first.

    Args:
        setup: of the new study: `fingerprints`, `task_digests`.
        known: digests of recipes that it begins with anyhow.
    """
    mine = setup["fingerprints"]
    found: list[tuple[tuple[int, int, bool, int], str, str, Given]] = []
    for study in store.studies.all():
        if study.setup.get("fingerprints", {}).get("base") != mine["base"]:
            continue
        order = (-_shared(study.setup, setup), study.verdict is None, -study.id)
        best = enumerate(_best_of(store, study, space, mine, known))
        found += [((place, *order), *one) for place, one in best]
    unique: dict[str, tuple[str, Given]] = {}
    for _, digest, origin, given in sorted(found, key=lambda one: one[0]):
        unique.setdefault(digest, (origin, given))
    return dict(list(unique.values())[:MOST])


def _shared(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> int:
    """How many tasks the studies have in common, data and all."""
    return len(set(theirs.get("task_digests", {}).items()) & set(ours.get("task_digests", {}).items()))


def _best_of(
    store: Store, study: Study, space: Space, mine: Mapping[str, str], known: Collection[str]
) -> Iterator[tuple[str, str, Given]]:
    """A study's best recipes that can be built of these experts: digest, origin, recipe."""
    seen = set(known)
    for trial in _best_trials(store, study):
        if len(seen) - len(set(known)) == EACH:
            return
        if is_baseline(trial.origin) or trial.evaluation_id is None:
            continue
        recipe = store.evaluations.recipe(trial.evaluation_id)
        try:
            given = over(recipe, _names(study.setup["fingerprints"], mine), tuple(space.experts))
            digest = as_recipe(space, given).digest(mine)
        except InvalidRecipe:  # of an expert that is not here, or of another number of them
            continue
        if digest not in seen:
            seen.add(digest)
            yield digest, named(EARLIER, study.name, trial.number), given


def _best_trials(store: Store, study: Study) -> list[Trial]:
    """Its best complete trials, the winner of a finished study first: that one won by all that its objective asks."""
    trials = store.trials.leading(study.id, _LOOKED_AT)
    winner = None if study.verdict is None else store.trials.get(study.id, study.verdict["winner"])
    return [*([winner] if winner else []), *(t for t in trials if winner is None or t.number != winner.number)]


def _names(theirs: Mapping[str, str], ours: Mapping[str, str]) -> dict[str, str]:
    """What we call each of their experts that we have; experts of equal content go one to one."""
    left = {key.removeprefix("expert:"): value for key, value in ours.items() if key != "base"}
    names: dict[str, str] = {}
    for key, fingerprint in theirs.items():
        name = next((name for name, value in left.items() if value == fingerprint), None)
        if key != "base" and name is not None:
            names[key.removeprefix("expert:")] = name
            del left[name]
    return names
