"""Logs that stay small and can be shown to anybody: no words of a conversation, nothing that steers a terminal.

A full one is put aside, and the oldest is dropped.
"""

from __future__ import annotations

import codecs
import os
import re
import threading
import traceback
from contextlib import suppress
from pathlib import Path
from typing import IO

MAX_LOG_BYTES = 5 << 20
KEPT = 3
"""Full ones, beside the one that is written."""
READ_BYTES = 64 << 10
_UNUSUAL = re.compile(r"[^ -~\n\t]")


class Log:
    """Open for appending; only the person can read it. Several processes may write to the same one."""

    def __init__(self, path: Path) -> None:
        """Raises OSError."""
        self._path = path
        self._decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._open()

    def write(self, data: bytes) -> None:
        """Append text in UTF-8, whole or in pieces; what cannot be printed is escaped. Raises OSError."""
        if os.fstat(self._handle).st_size >= MAX_LOG_BYTES:
            os.close(self._handle)
            self._open()
        said = _printable(self._decoder.decode(data)).encode()
        while said:
            said = said[os.write(self._handle, said) :]

    def write_all(self, pipe: IO[bytes]) -> threading.Thread:
        """Append what comes from a pipe, on a thread of its own, and close both when the pipe ends."""
        thread = threading.Thread(target=self._drain, args=(pipe,), name="log", daemon=True)
        thread.start()
        return thread

    def close(self) -> None:
        """There is nothing more to write."""
        os.close(self._handle)

    def _drain(self, pipe: IO[bytes]) -> None:
        while data := os.read(pipe.fileno(), READ_BYTES):
            with suppress(OSError):  # whoever writes must not wait for a disk that is full
                self.write(data)
        pipe.close()
        self.close()

    def _open(self) -> None:
        if self._path.is_file() and self._path.stat().st_size >= MAX_LOG_BYTES:
            for number in range(KEPT, 0, -1):
                older = self._aside(number - 1)
                if older.exists():
                    older.replace(self._aside(number))
        self._handle = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def _aside(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}") if number else self._path


def trace(error: BaseException) -> str:
    """Where an error came from, cause first, without its words: they may quote what somebody has typed."""
    before = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    lines = [trace(before), "\nwhich led to\n\n"] if before else []
    lines += ["Traceback (most recent call last):\n", *traceback.format_tb(error.__traceback__)]
    # The system's words quote nobody.
    why = f": {error.strerror}" if isinstance(error, OSError) and error.errno else ""
    return "".join([*lines, type(error).__name__, why, "\n"])


def _printable(text: str) -> str:
    return _UNUSUAL.sub(_as_escape, text)


def _as_escape(found: re.Match[str]) -> str:
    return found[0] if found[0].isprintable() else found[0].encode("unicode_escape").decode()
