"""Logs that stay small and can be shown to anybody: no text of a conversation, no terminal control sequences.

A full log is renamed, and the oldest one is deleted.
"""

from __future__ import annotations

import codecs
import errno
import os
import re
import stat
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO

MAX_LOG_BYTES = 5 << 20
KEPT = 3
"""Full logs that are kept besides the current one."""
READ_BYTES = 64 << 10
TAIL_BYTES = 4 << 10
MAX_LINE_CHARACTERS = 200
RECENT_S = 5.0
HINTS = ("note:", "stack backtrace:", "Extension modules:")
"""How lines begin that follow an error's message without being one."""
_UNUSUAL = re.compile(r"[^ -~\n\t]")


class Log:
    """A log open for appending, readable by its owner only. Several processes may write to the same file."""

    def __init__(self, path: Path) -> None:
        """Raises OSError."""
        self._path = path
        self._decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._open()

    def write(self, data: bytes) -> None:
        """Append UTF-8 text, in pieces of any size; unprintable characters are escaped. Raises OSError."""
        if os.fstat(self._handle).st_size >= MAX_LOG_BYTES:
            os.close(self._handle)
            self._open()
        rest = _printable(self._decoder.decode(data)).encode()
        while rest:
            rest = rest[os.write(self._handle, rest) :]

    def write_all(self, pipe: IO[bytes], tail: Tail | None = None) -> threading.Thread:
        """Append everything from a pipe, on a thread of its own, and close both when the pipe is closed.

        tail: gets the same text.
        """
        thread = threading.Thread(target=self._drain, args=(pipe, tail), name="log", daemon=True)
        thread.start()
        return thread

    def close(self) -> None:
        """Close the file."""
        os.close(self._handle)

    def _drain(self, pipe: IO[bytes], tail: Tail | None) -> None:
        while data := os.read(pipe.fileno(), READ_BYTES):
            if tail:
                tail.add(data)
            with suppress(OSError):  # a full disk must not block the writer of the pipe
                self.write(data)
        pipe.close()
        self.close()

    def _open(self) -> None:
        if self._path.is_file() and self._path.stat().st_size >= MAX_LOG_BYTES:
            for number in range(KEPT, 0, -1):
                older = self._aside(number - 1)
                if older.exists():
                    older.replace(self._aside(number))
        # Non-blocking, because opening a pipe waits for a reader, which may never come.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
        try:
            self._handle = os.open(self._path, flags, 0o600)
        except OSError as error:
            raise _not_a_file() if error.errno == errno.ENXIO else error from None
        kind = os.fstat(self._handle).st_mode
        if not (stat.S_ISREG(kind) or stat.S_ISCHR(kind)):
            os.close(self._handle)
            raise _not_a_file()

    def _aside(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}") if number else self._path


class Tail:
    """What a process printed just before it ended, for a sentence about that."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._data = b""
        self._at_s = 0.0

    def add(self, data: bytes) -> None:
        self._forget_old()
        self._data, self._at_s = (self._data + data)[-TAIL_BYTES:], self._clock()

    def _forget_old(self) -> None:
        """The process went on for a while after that, so it says nothing about its end."""
        if self._clock() - self._at_s > RECENT_S:
            self._data = b""

    def last_line(self) -> str:
        """The last line that says something, shortened; empty if nothing was printed in the last seconds."""
        self._forget_old()
        lines = [line.strip() for line in _printable(self._data.decode("utf-8", "backslashreplace")).splitlines()]
        said = [line for line in lines if line and not line.startswith(HINTS)]
        return said[-1][:MAX_LINE_CHARACTERS] if said else ""


def _not_a_file() -> OSError:
    return OSError(errno.EINVAL, "it is not a regular file")


def trace(error: BaseException) -> str:
    """A traceback, cause first, without the errors' messages: they may quote what somebody typed."""
    before = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    lines = [trace(before), "\nwhich led to\n\n"] if before else []
    lines += ["Traceback (most recent call last):\n", *traceback.format_tb(error.__traceback__)]
    # Messages of the operating system quote nobody.
    why = f": {error.strerror}" if isinstance(error, OSError) and error.errno else ""
    return "".join([*lines, type(error).__name__, why, "\n"])


def _printable(text: str) -> str:
    return _UNUSUAL.sub(_as_escape, text)


def _as_escape(match: re.Match[str]) -> str:
    return match[0] if match[0].isprintable() else match[0].encode("unicode_escape").decode()
