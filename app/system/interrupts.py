"""ctrl+c while something long runs: the first asks it to stop where it can, the second ends it at once."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType


@dataclass(slots=True)
class Stop:
    """A request to stop, set by a signal handler and looked at wherever the run continues."""

    is_requested: bool = False


@contextmanager
def stopping(stop: Stop, wake: Callable[[], None] = lambda: None) -> Iterator[None]:
    """While open, the first ctrl+c sets `stop`; the second raises KeyboardInterrupt.

    The first may come in the middle of anything, so it only sets and wakes. wake: ends a wait, so that `stop` is
    looked at.
    """

    def handle(signum: int, frame: FrameType | None) -> None:
        if stop.is_requested:
            raise KeyboardInterrupt
        stop.is_requested = True
        wake()

    previous_handler = signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous_handler)
