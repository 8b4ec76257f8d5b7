"""What goes into a live model's modules or comes out of them in one pass, and putting something else in its place."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

from torch import Tensor, nn

from evaluation.artefacts.modules import real_positions
from evaluation.artefacts.texts import Text

End = Literal["input", "output"]


class Tap(NamedTuple):
    """One end of a module."""

    module: nn.Module
    end: End


@contextmanager
def tapped(taps: Mapping[str, Tap], see: Callable[[str, Tensor], None]) -> Iterator[None]:
    """Gives `see` each module's input before it is called, or its output after, [rows, width, channels].

    Args:
        taps: by the name that `see` is told.
    """
    handles = []
    for name, tap in taps.items():
        if tap.end == "input":
            handles.append(tap.module.register_forward_pre_hook(_before(name, see)))
        else:
            handles.append(tap.module.register_forward_hook(_after(name, see)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def replaced(module: nn.Module, instead: Callable[[], Tensor]) -> Iterator[None]:
    """The module computes as ever, and then gives out `instead()`."""

    def hook(_: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        return (instead(), *output[1:]) if isinstance(output, tuple) else instead()

    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def unpadded(values: Tensor, texts: Sequence[Text]) -> Tensor:
    """Of [rows, width, channels] those of real positions, [positions, channels]."""
    real = real_positions(values, [text.positions for text in texts])
    if real is None:
        raise RuntimeError(f"a module gave {list(values.shape)}, which are not the values of all positions")
    return values.reshape(-1, values.shape[-1])[real.to(values.device)]


def _before(name: str, see: Callable[[str, Tensor], None]) -> Callable[[nn.Module, tuple[Any, ...]], None]:
    return lambda module, args: see(name, args[0])


def _after(name: str, see: Callable[[str, Tensor], None]) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
    return lambda module, args, output: see(name, output[0] if isinstance(output, tuple) else output)
