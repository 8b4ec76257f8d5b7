"""What is known of models before anything is tried: how far each expert moved each layer, and whether experts agree.

A frozen record that a study's setup keeps; `merging.profiling` measures it. No torch here.
"""

from pydantic import BaseModel, ConfigDict


class Profile(BaseModel):
    """Sums over weights, by expert in the study's order.

    Attributes:
        inner: [layers, experts, experts] inner products of the experts' deltas in each layer; what stands before the
            layers counts to the first, what stands after them to the last.
        base: [layers] squared norm of the base's weights there.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    inner: tuple[tuple[tuple[float, ...], ...], ...]
    base: tuple[float, ...]

    @property
    def squares(self) -> tuple[float, ...]:
        """Squared norm of each expert's whole delta."""
        return tuple(sum(layer[i][i] for layer in self.inner) for i in range(len(self.inner[0])))
