"""The front of a study with several objectives, as programs and the API show it: each trial with its recipe."""

from typing import Any

from pydantic import BaseModel, Field

from db.records import Study
from db.store import Store
from search.fronts import front_of


class FrontEntry(BaseModel):
    """A trial of the front: none beats it in one task without losing in another."""

    trial: int
    origin: str
    recommended: bool = Field(description="the knee: the best compromise, of one trial alone")
    tasks: dict[str, float] = Field(description="its value in each task on the search documents, as lm-eval has it")
    recipe: dict[str, Any]
    recipe_digest: str


def front_entries(store: Store, study: Study) -> list[FrontEntry] | None:
    """The front as far as it is known, the recommended trial first; None of an objective that has none."""
    if study.spec["objective"] != "pareto":
        return None
    found = []
    for index, point in enumerate(front_of(store, study)):
        trial = store.trials.get(study.id, point.trial)
        assert trial is not None and trial.evaluation_id is not None, "a trial of the front was scored"
        evaluation = store.evaluations.get(trial.evaluation_id)
        found.append(
            FrontEntry(
                trial=point.trial,
                origin=point.label,
                recommended=index == 0,
                tasks=point.tasks,
                recipe=evaluation.recipe.model_dump(mode="json", by_alias=True),
                recipe_digest=evaluation.recipe_digest,
            )
        )
    return found
