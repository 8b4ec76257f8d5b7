"""An observed trial as the archives of evolution take it in."""

from collections.abc import Mapping

from search.evolution.member import G, Member
from search.evolution.skill import plain_skill, read_skill
from search.strategies.contract import Observation


def member_of(seen: Observation, genome: G, weights: Mapping[str, float]) -> Member[G] | None:
    """The member; None where the trial has no value, or was stopped before any task that counts was scored.

    Args:
        weights: of the tasks.
    """
    if seen.value is None:
        return None
    skill = plain_skill(seen.value) if seen.scores is None else read_skill(seen.scores(), weights)
    if not skill.values:
        return None
    return Member(seen.number, genome, seen.value, skill, seen.violation, seen.pruned)
