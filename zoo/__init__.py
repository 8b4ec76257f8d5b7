"""Small real models trained on the spot: input of the demo, the tests and the benchmarks.

`zoo.build(folder)` trains them or finds them there. Importing this package loads no torch.
"""

from zoo.make import Zoo, build
from zoo.study import write_study

__all__ = ["Zoo", "build", "write_study"]
