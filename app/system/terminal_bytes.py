"""What a terminal answers and sends, byte for byte, for a report about it."""

from __future__ import annotations

import os
import select
import termios
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from time import monotonic

VARIABLES = (
    "TERM", "COLORTERM", "TERM_PROGRAM", "TERM_PROGRAM_VERSION", "LC_TERMINAL", "LC_TERMINAL_VERSION", "NO_COLOR",
)  # fmt: skip
"""By these, programs know a terminal. None of them names a person."""
QUESTIONS = {
    "name": "\x1b[>0q",
    "kitty keyboard": "\x1b[?u",
    "synchronized output": "\x1b[?2026$p",
    "bracketed paste": "\x1b[?2004$p",
    "background": "\x1b]11;?\x1b\\",
}
LAST_QUESTION, LAST_ANSWER = "\x1b[c", ord("c")
"""Every terminal tells what it is (DA1), so that nothing has to be waited for."""
ANSWER_S = 1.0
KEYS = (
    "enter", "shift+enter", "alt+enter (option+enter)", "ctrl+enter", "alt+left (option+left)", "ctrl+left",
    "alt+d (option+d)", "shift+tab", "f1", "f6", "home", "delete forward", "ctrl+z", "ctrl+s", "é",
)  # fmt: skip
SKIP = b" "
REST_S = 0.05
"""The bytes of one key come within this time."""
READ_BYTES = 256


def variables_in(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: environment[name] for name in VARIABLES if name in environment}


class Terminal:
    """The terminal that a descriptor belongs to. Reads and writes bytes only."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @contextmanager
    def unbuffered(self) -> Iterator[None]:
        """Keys arrive at once, unchanged and not echoed; ctrl+c still interrupts. Restores everything."""
        before = termios.tcgetattr(self._descriptor)
        mode = termios.tcgetattr(self._descriptor)
        mode[0] &= ~(termios.IXON | termios.ICRNL | termios.INLCR | termios.IGNCR)
        mode[3] &= ~(termios.ICANON | termios.ECHO | termios.IEXTEN)
        mode[6] = list(mode[6])
        # Job control keeps its key in the shell; in the chat it is a key like others.
        mode[6][termios.VSUSP] = b"\x00"
        mode[6][termios.VMIN], mode[6][termios.VTIME] = 1, 0
        termios.tcsetattr(self._descriptor, termios.TCSAFLUSH, mode)
        try:
            yield
        finally:
            termios.tcsetattr(self._descriptor, termios.TCSAFLUSH, before)

    def write(self, text: str) -> None:
        os.write(self._descriptor, text.encode())

    def read(self, timeout_s: float | None) -> bytes:
        """What has arrived; empty if nothing does within this time, or nothing will any more. None: wait."""
        if not select.select([self._descriptor], [], [], timeout_s)[0]:
            return b""
        return os.read(self._descriptor, READ_BYTES)


def ask_terminal(terminal: Terminal, clock: Callable[[], float] = monotonic) -> dict[str, str]:
    """Its answer to each question; empty: none. Ask in `unbuffered`."""
    answers = {}
    for name, question in QUESTIONS.items():
        terminal.write(question + LAST_QUESTION)
        data, end_s = b"", clock() + ANSWER_S
        while not _is_complete(data) and (left_s := end_s - clock()) > 0:
            data += terminal.read(left_s)
        answers[name] = escaped(_without_last(data))
    return answers


def read_keys(terminal: Terminal, tell: Callable[[str], None]) -> dict[str, str]:
    """The bytes of the keys that the person is asked to press, without those they skip. Read in `unbuffered`."""
    keys = {}
    for key in KEYS:
        tell(f"Press {key}, or space to skip it.")
        data = terminal.read(None)
        while data and (more := terminal.read(REST_S)):
            data += more
        if data != SKIP:
            keys[key] = escaped(data)
    return keys


def escaped(data: bytes) -> str:
    """As in Python's source, without quotes."""
    return repr(data)[2:-1]


def _is_complete(data: bytes) -> bool:
    return data.rpartition(b"\x1b[?")[2].endswith(b"c") and b"\x1b[?" in data


def _without_last(data: bytes) -> bytes:
    return data[: data.rindex(b"\x1b[?")] if _is_complete(data) else data
