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


PASTE_BEGINS, PASTE_ENDS = "\x1b[200~", "\x1b[201~"


class PasteGuard:
    """Lets a paste be text only. Textual takes an escape in it for keys, and one of those may be enter.

    Works on chunks that are cut anywhere.
    """

    def __init__(self) -> None:
        self._is_inside = False
        self._held = ""
        """The beginning of what may be the mark that is waited for: given on before a paste, held back in it."""

    def feed(self, text: str) -> str:
        """What the parser may have of `text` and of what was held back."""
        given: list[str] = []
        while text:
            mark = PASTE_ENDS if self._is_inside else PASTE_BEGINS
            text, known = self._held + text, len(self._held)
            before, found, after = text.partition(mark)
            self._held = "" if found else _beginning_of(mark, text)
            if self._is_inside:
                whole = before if found else before.removesuffix(self._held)
                given += [whole.replace("\x1b", "\N{SYMBOL FOR ESCAPE}"), found]
            else:
                given.append((before + found)[known:])
            self._is_inside ^= bool(found)
            text = after
        return "".join(given)


def _beginning_of(mark: str, text: str) -> str:
    """The longest end of `text` that `mark` may go on from."""
    return next((mark[:size] for size in range(len(mark) - 1, 0, -1) if text.endswith(mark[:size])), "")


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
        # The screen is empty now, and a window of the same size is no reason for Textual to draw.
        self._app.call_later(self._app.refresh, layout=True)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if self._loop.is_closed():
            raise KeyboardInterrupt
        self._loop.call_soon_threadsafe(partial(self._app.exit, return_code=128 + number))

    def run_input_thread(self) -> None:
        """Read, decode and pass on what is typed, until the app or the terminal ends."""
        parser = XTermParser(self._debug)
        decode = getincrementaldecoder("utf-8")("replace").decode
        guard = PasteGuard()
        with selectors.SelectSelector() as selector:
            selector.register(self.fileno, selectors.EVENT_READ)
            while not self.exit_event.is_set():
                if selector.select(POLL_S):
                    data = self._read()
                    if not data:
                        self._app.call_later(self._app.exit, return_code=128 + signal.SIGHUP)
                        return
                    if text := guard.feed(decode(data)):
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
