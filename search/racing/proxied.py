"""A proxy before the race: what a cheap, label-free look thinks little of is not scored at all.

The better half goes on: a proxy is trusted with no more than that, since how far it can be trusted is known only in the
end, when the report shows how its order agrees with the objective's.
"""

from collections.abc import Mapping
from dataclasses import replace

from evaluation.statistics import Measure
from search.racing.contract import Contender, Field, Incumbent, Past, Promote, Racer, Stop


class Proxied:
    """A policy whose rungs follow a rung of the proxy alone.

    Args:
        inner: the policy, for a study without the proxy's rung.
    """

    def __init__(self, inner: Racer) -> None:
        self._inner = inner

    def entry(self, number: int) -> int:
        """The proxy's rung, for everybody."""
        return 0

    def decide(self, contender: Contender, field: Field) -> Promote | Stop:
        """By the proxy on its rung, else by the policy."""
        if contender.rung > 0:
            found = self._inner.decide(replace(contender, rung=contender.rung - 1), _Above(field))
            return Promote(found.rung + 1) if isinstance(found, Promote) else found
        others = list(field.seen(0).values())
        better, most = sum(value > contender.value for value in others), (len(others) + 2) // 2
        if better < most:
            return Promote(1 + self._inner.entry(contender.number))
        return Stop(f"proxy: number {better + 1} of {len(others) + 1}; {most} go on")


class _Above:
    """A field without the proxy's rung."""

    def __init__(self, field: Field) -> None:
        self._field = field

    @property
    def incumbent(self) -> Incumbent | None:
        return self._field.incumbent

    @property
    def measure(self) -> Measure:
        return self._field.measure

    def seen(self, rung: int) -> Mapping[int, float]:
        return self._field.seen(rung + 1)

    def past(self, rung: int) -> Past:
        return self._field.past(rung + 1)

    def predecessors(self, rung: int) -> Past | None:
        return self._field.predecessors(rung + 1)
