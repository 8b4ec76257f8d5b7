"""No search at all: each expert, the plain average, and task arithmetic with one weight for all, from 0.1 to 1."""

from benchmarks.rivals.contract import Best, Question, Setting
from merging.recipe import Recipe

LAMBDAS = tuple(step / 10 for step in range(1, 11))


class Known:
    """A `Rival`: the best of what is known without a search."""

    def __init__(self, setting: Setting) -> None:
        whole, count = (0, setting.layers), len(setting.experts)
        alone = [[float(i == j) for j in range(count)] for i in range(count)]
        self._left = [
            setting.recipe([setting.group(whole, "task_arithmetic", weights)])
            for weights in (*alone, [1.0 / count] * count, *([value] * count for value in LAMBDAS))
        ]
        self._best = Best()

    def ask(self) -> Question | None:
        """As `Rival.ask`."""
        return Question(self._left[0]) if self._left else None

    def tell(self, value: float | None) -> None:
        """As `Rival.tell`."""
        self._best.note(self._left.pop(0), value)

    def recommended(self) -> Recipe | None:
        """As `Rival.recommended`."""
        return self._best.recipe
