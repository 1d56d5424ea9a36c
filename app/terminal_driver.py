"""The terminal while the chat draws on it: whatever is typed or happens, it is given back as it was.

Textual's own driver ends the app at the first byte that is not UTF-8, and leaves the terminal raw on signals.
"""

from __future__ import annotations

import asyncio
import os
import selectors
import signal
from codecs import getincrementaldecoder
from contextlib import suppress
from functools import partial
from io import TextIOBase
from types import FrameType

from textual._xterm_parser import XTermParser
from textual.drivers.linux_driver import LinuxDriver

ENDING_SIGNALS = (signal.SIGTERM, signal.SIGHUP)
READ_BYTES = 4096
POLL_S = 0.1
"""How long the end of the chat may wait for the input thread, and a lone escape to be taken for the key."""


class Output:
    """What is drawn goes to `file`, and nowhere once the terminal is gone.

    An error would end Textual's writing thread, and its queue, full, would hold up the app for ever.
    """

    def __init__(self, file: TextIOBase) -> None:
        self._file = file
        self.fileno = file.fileno

    def write(self, text: str) -> None:
        """Write, if there is anybody to read."""
        with suppress(OSError):
            self._file.write(text)

    def flush(self) -> None:
        """Pass on what was written."""
        with suppress(OSError):
            self._file.flush()


class TerminalDriver(LinuxDriver):
    """Bytes that are not UTF-8 become U+FFFD; INT, TERM, HUP and a terminal that is gone end the app in order."""

    _is_suspended = False

    def start_application_mode(self) -> None:
        """Before the terminal is changed, see that no signal leaves it so."""
        self._loop = asyncio.get_running_loop()
        for number in ENDING_SIGNALS:
            self._loop.add_signal_handler(number, partial(self._app.exit, return_code=128 + number))
        # Not by the loop, which would also hear what is meant for an editor that runs in between.
        signal.signal(signal.SIGINT, self._interrupt)
        if isinstance(self._file, TextIOBase):
            self._file = Output(self._file)  # type: ignore[assignment]
        super().start_application_mode()  # type: ignore[no-untyped-call]

    def suspend_application_mode(self) -> None:
        """Give the terminal back for a while."""
        self._is_suspended = True
        super().suspend_application_mode()

    def resume_application_mode(self) -> None:
        """Take the terminal again. After SIGSTOP, which nobody is told of, it is first put in order."""
        if not self._is_suspended:
            self.suspend_application_mode()
        self._is_suspended = False
        super().resume_application_mode()

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if self._loop.is_closed():
            raise KeyboardInterrupt
        self._loop.call_soon_threadsafe(partial(self._app.exit, return_code=128 + number))

    def run_input_thread(self) -> None:
        """Read, decode and pass on what is typed, until the app or the terminal ends."""
        parser = XTermParser(self._debug)
        decode = getincrementaldecoder("utf-8")("replace").decode
        with selectors.SelectSelector() as selector:
            selector.register(self.fileno, selectors.EVENT_READ)
            while not self.exit_event.is_set():
                if selector.select(POLL_S):
                    data = self._read()
                    if not data:
                        self._app.call_later(self._app.exit, return_code=128 + signal.SIGHUP)
                        return
                    if text := decode(data):
                        for message in parser.feed(text):
                            self.process_message(message)
                for message in parser.tick():
                    self.process_message(message)

    def _read(self) -> bytes:
        """Nothing at the end, which an error of the terminal is as well."""
        try:
            return os.read(self.fileno, READ_BYTES)
        except OSError:
            return b""
