"""What a strategy is made of, before anything was observed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from merging.profile import Profile
from search.judge import Judge
from search.space import Space
from search.starts.start import Start


@dataclass(frozen=True)
class Opening:
    """One study's search as it begins.

    Attributes:
        seed: keys every random draw, together with the trial's number.
        starts: what is tried first.
        trials: how many there will be, the starts included.
        objectives: how many numbers a trial is judged by.
        options: of the strategy, every one.
        profile: what is known of the models' weights; of a study of before there was one, None.
        weights: of the tasks; those not named count 1.
        judge: the study's, for this strategy alone, nothing told; None: it has none (in tests of strategies).
    """

    space: Space
    seed: int
    starts: Sequence[Start] = ()
    trials: int = 60
    objectives: int = 1
    options: dict[str, Any] = field(default_factory=dict)
    profile: Profile | None = None
    weights: Mapping[str, float] = field(default_factory=dict)
    judge: Judge | None = None
