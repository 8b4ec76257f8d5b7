"""Which code a test of the kernel runs."""

import pytest

from merging.kernel.choice import VARIABLE
from merging.kernel.compile import NoKernel, compiled


@pytest.fixture(scope="session")
def compiler() -> None:
    """Skips the test where the kernel cannot be compiled."""
    try:
        compiled()
    except NoKernel as error:
        pytest.skip(str(error))


@pytest.fixture(params=["native", "torch"])
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Runs the test by the compiled kernel and by torch."""
    chosen = str(request.param)
    if chosen == "native":
        request.getfixturevalue("compiler")
    monkeypatch.setenv(VARIABLE, chosen)
    return chosen
