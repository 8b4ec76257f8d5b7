"""A served language model proposes; TPE proposes wherever the model gives nothing that can be tried.

Nothing of it decides anything: what it proposes is checked against the space and scored as any other trial. What was
proposed stands in the database, so a replay asks nobody; of an answer what was not tried yet is lost with the process.
"""

import logging
from collections.abc import Mapping
from dataclasses import replace

from merging.catalog import Scalar
from search.strategies.contract import Exhausted, Observation, Proposal, Wait
from search.strategies.opening import Opening
from search.strategies.proposer.answer import Refused, checked, read_list
from search.strategies.proposer.asking import SECONDS, NoAnswer, ask
from search.strategies.proposer.prompt import DIGITS, Record, messages
from search.strategies.proposer.settings import Settings
from search.strategies.sampled import tpe
from search.strategies.tried import name_of

log = logging.getLogger(__name__)
MODEL, TPE = "model", "tpe"
LONGEST_PAUSE = 32  # trials of TPE's between two questions


class Proposer:
    """The strategy `proposer`.

    Args:
        opening: of its options those of `Settings`; absent ones are at their defaults.
        seconds: how long an answer may take.
    """

    def __init__(self, opening: Opening, seconds: float = SECONDS) -> None:
        self._space, self._starts, self._seconds = opening.space, len(opening.starts), seconds
        self._settings = Settings.of(opening.options)
        self._tpe = tpe(opening.space, opening.seed, 1, len(opening.starts))
        self._waiting: list[Proposal] = []
        self._refused: list[str] = []
        self._since = 0  # trials of TPE's since the last of the model's
        self._records: list[Record] = []
        self._open: dict[int, Mapping[str, Scalar]] = {}
        self._tried: set[str] = set()

    def propose(self, number: int) -> Proposal | Wait | Exhausted:
        """What the model proposed, asked if nothing of its last answer is left; else what TPE does."""
        proposal = self._next()
        if proposal is None and is_due(self._since):
            self._ask()
            proposal = self._next()
        if proposal is not None:
            self._tpe.reserve(number, proposal)
        else:
            found = self._tpe.propose(number)
            if not isinstance(found, Proposal):
                return found
            proposal = replace(found, by=TPE)
        self._note(number, proposal)
        return proposal

    def reserve(self, number: int, proposal: Proposal) -> None:
        """Let TPE know of it, and remember whose it was."""
        self._tpe.reserve(number, proposal)
        self._note(number, proposal)

    def observe(self, observation: Observation) -> None:
        """TPE learns of it, and the model is shown it."""
        self._tpe.observe(observation)
        self._open.pop(observation.number, None)
        if observation.params is not None:
            self._records.append(Record.of(observation, observation.params))

    def _note(self, number: int, proposal: Proposal) -> None:
        if number >= self._starts:
            self._since = 0 if proposal.by == MODEL else self._since + 1
        if proposal.params is not None:
            self._open[number] = proposal.params
            self._tried.add(name_of(proposal.params, DIGITS))

    def _next(self) -> Proposal | None:
        """The next of what the model proposed that TPE did not try meanwhile."""
        while self._waiting:
            proposal = self._waiting.pop(0)
            if name_of(proposal.params or {}, DIGITS) not in self._tried:
                return proposal
        return None

    def _ask(self) -> None:
        """Ask the model, and keep what can be tried."""
        shown = (list(self._open.values()), self._refused, self._settings.batch, self._settings.history)
        try:
            answer = ask(self._settings, messages(self._space, self._records, *shown), self._seconds)
            given = read_list(answer)[: self._settings.batch]
        except (NoAnswer, Refused) as error:
            self._refused = []
            log.warning("the proposer is of no use now: %s", error, extra={"action": "proposer.silent"})
            return
        self._refused = []
        for each in given:
            try:
                self._keep(replace(checked(self._space, each), by=MODEL))
            except Refused as error:
                self._refused.append(str(error))
        for why in self._refused:
            log.info("a proposal was refused: %s", why, extra={"action": "proposer.refused"})

    def _keep(self, proposal: Proposal) -> None:
        name = name_of(proposal.params or {}, DIGITS)
        if name in self._tried or any(name == name_of(p.params or {}, DIGITS) for p in self._waiting):
            raise Refused("a proposal is the same as another, or as a trial")
        self._waiting.append(proposal)


def is_due(since: int) -> bool:
    """Whether to ask, after so many trials of TPE's in a row: a model that gave nothing is asked ever more seldom.

    At 0, and then after pauses of 2, 4, 8, ... trials, at most `LONGEST_PAUSE`.
    """
    if since < LONGEST_PAUSE:
        return (since + 2) & (since + 1) == 0
    return (since + 2) % LONGEST_PAUSE == 0
