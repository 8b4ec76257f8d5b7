"""Parts that take turns."""

from search.strategies.contract import Exhausted, Observation, Proposal, Strategy, Wait
from search.strategies.staged import Part, Staged


class Noting:
    """A part that proposes so often, and notes what it hears."""

    def __init__(self, count: int, *, waits_at: int | None = None) -> None:
        self._left, self._waits_at = count, waits_at
        self.reserved: list[int] = []
        self.observed: list[int] = []

    def propose(self, number: int) -> Proposal | Wait | Exhausted:
        if number == self._waits_at:
            return Wait()
        if not self._left:
            return Exhausted()
        self._left -= 1
        return Proposal({"x": number}, None, by="inner")

    def reserve(self, number: int, proposal: Proposal) -> None:
        self.reserved.append(number)

    def observe(self, observation: Observation) -> None:
        self.observed.append(observation.number)


def names(staged: Strategy, first: int, count: int) -> list[str]:
    found = [staged.propose(number) for number in range(first, first + count)]
    return [f.by if isinstance(f, Proposal) else type(f).__name__ for f in found]


def test_each_part_has_its_share_then_the_next_and_the_end() -> None:
    staged = Staged([Part("a", Noting(9), 2), Part("b", Noting(1)), Part("c", Noting(1))], 0)
    assert names(staged, 0, 5) == ["a:inner", "a:inner", "b:inner", "c:inner", "Exhausted"]


def test_a_part_that_waits_lets_the_next_go_on() -> None:
    staged = Staged([Part("a", Noting(9, waits_at=3)), Part("b", Noting(1))], 0)
    assert names(staged, 2, 3) == ["a:inner", "b:inner", "a:inner"]
    alone = Staged([Part("a", Noting(9, waits_at=0))], 0)
    assert names(alone, 0, 1) == ["Wait"]


def test_after_a_restart_the_turn_is_where_it_was_and_each_part_has_its_own() -> None:
    first, second = Noting(9), Noting(9)
    staged = Staged([Part("a", first, 2), Part("b", second)], 1)
    for number, by in enumerate(["", "a:inner", "a:inner", "b:inner"]):
        staged.reserve(number, Proposal({}, None, by=by))
    assert (first.reserved, second.reserved) == ([0, 1, 2], [0, 3])
    staged.observe(Observation(2, "auto:a:inner", {}, None, 0.5))
    assert first.observed == second.observed == [2]
    assert names(staged, 4, 1) == ["b:inner"]
