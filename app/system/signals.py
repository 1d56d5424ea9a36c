"""SIGTERM and SIGHUP end a command as an error does, so that what it has started ends with it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

ENDING_SIGNALS = (signal.SIGTERM, signal.SIGHUP)


@contextmanager
def ending_on_signals() -> Iterator[None]:
    """Raise SystemExit with 128 and the signal's number at the first such signal; later ones are ignored.

    One that is ignored already, as with nohup, stays ignored. Does nothing outside the main thread.
    """

    def end(number: int, frame: FrameType | None) -> None:
        for each in ENDING_SIGNALS:  # nothing may interrupt what is done at the end
            signal.signal(each, lambda *_: None)
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in ENDING_SIGNALS}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
