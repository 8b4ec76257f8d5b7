"""Why a search is over: a record that the study's row, its verdict and the API keep."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

Reason = Literal["trials", "documents", "minutes", "gain", "exhausted"]


class Ended(BaseModel):
    """The end of a search.

    Attributes:
        reason: `trials`: as many as were asked for; `documents`, `minutes`: that budget is used up; `gain`: the trials
            left are expected to gain too little; `exhausted`: the strategy has nothing left to propose.
        why: in words, to follow "the search ended: ".
        left: of `gain`, how many trials were left; where a budget limits them, about.
        expected: of `gain`, what these would have gained, in the objective's units.
        least: of `gain`, the least that was worth going on for.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    reason: Reason
    why: str
    left: int | None = None
    expected: float | None = None
    least: float | None = None


EXHAUSTED = Ended(reason="exhausted", why="the strategy had nothing left to try")
