"""Output on the command line: the only code that writes to standard output and standard error.

A terminal only gets text that cannot steer it; a pipe or file gets the original text in UTF-8. Standard error is
for people and is always made safe.
"""

from __future__ import annotations

import argparse
import os
import stat
import sys
from contextlib import suppress
from typing import IO, Any, NoReturn, TextIO

from app.text.sanitise import sanitise, sanitise_json
from mlx_engine.protocol.errors import SlipstreamError

STANDARD_OUTPUT = "-"
"""Stands for standard output in place of a file's name."""
CLEAR_LINE = "\r\x1b[2K"
MAX_TYPED_BYTES = 1024 if sys.platform == "darwin" else 4096
"""What a terminal accepts in one line, including its end. It drops what is typed beyond that."""


class OutputError(SlipstreamError):
    """Standard output cannot be written."""


class Arguments(argparse.ArgumentParser):
    """An argument parser whose errors are safe to print, whatever the arguments contain."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        # From Python 3.14 on, help has colours, whose escape codes would be shown as text.
        self.color = False

    def _print_message(self, message: str, file: Any = None) -> None:
        if not message:
            return
        if file is not None and file is sys.stderr:
            _write_error(sanitise(message))
        else:
            _write(file, sanitise(message))


def is_terminal(stream: TextIO | None) -> bool:
    """Whether a standard stream is a terminal. It is None if it was closed before the program started."""
    return stream is not None and stream.isatty()


def has_piped_input() -> bool:
    """Whether standard input is a pipe or a file, not a terminal, a device or closed."""
    try:
        kind = os.fstat(sys.stdin.fileno()).st_mode
    except (AttributeError, OSError):
        return False
    return stat.S_ISFIFO(kind) or stat.S_ISREG(kind) or stat.S_ISSOCK(kind)


def say(text: str = "", *, end: str = "\n") -> None:
    """Print a result to standard output. Raises OutputError."""
    _write(sys.stdout, (sanitise(text) if is_terminal(sys.stdout) else text) + end)


def say_json(text: str) -> None:
    """Print a JSON result to standard output, with every character that could steer a terminal escaped.

    Raises OutputError.
    """
    _write(sys.stdout, sanitise_json(text) + "\n")


def tell(text: str = "") -> None:
    """Print progress or a hint to standard error."""
    _write_error(sanitise(text) + "\n")


def warn(text: str) -> None:
    """Print an error or warning to standard error, after the program's name."""
    tell(f"slipstream: {text}")


def ask(question: str) -> bool:
    """Ask a question; returns whether the answer is yes. Standard input must be a terminal."""
    _write_error(f"{sanitise(question)} [y/N] ")
    return sys.stdin.readline().strip().lower() in ("y", "yes")


class MovingLine:
    """A line on standard error that is overwritten again and again, with ordinary lines in between."""

    def __init__(self) -> None:
        self.is_terminal = is_terminal(sys.stderr)
        self._is_open = False

    def move(self, text: str) -> None:
        """Replace the moving line."""
        self._is_open = True
        _write_error(CLEAR_LINE + sanitise(text))

    def say(self, text: str) -> None:
        """Print a line that stays."""
        start = CLEAR_LINE if self._is_open else ""
        self._is_open = False
        _write_error(f"{start}{sanitise(text)}\n")

    def close(self) -> None:
        """End the moving line, so that the cursor is at the start of a line."""
        if self._is_open:
            self._is_open = False
            _write_error("\n")


def reserve_standard_streams() -> None:
    """Open the null device in place of closed standard streams, so that no other file gets their numbers."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            with suppress(OSError):
                os.open(os.devnull, os.O_RDWR)


def flush_at_exit() -> None:
    """Flush at the end; if the terminal is gone, discard what is buffered instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError:
            discard(stream)


def fail(stream: TextIO, error: OSError) -> NoReturn:
    """Report that standard output cannot be written. Raises OutputError; SystemExit if its reader has gone."""
    discard(stream)
    if isinstance(error, BrokenPipeError):
        raise SystemExit(0) from None
    raise OutputError(f"Standard output cannot be written: {error.strerror}.") from None


def discard(stream: TextIO) -> None:
    """Discard what is buffered and what follows, so that neither fails at exit."""
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _write_error(text: str) -> None:
    """Write to standard error. Where that fails, nobody can be told."""
    if sys.stderr is not None:
        with suppress(OutputError):
            _write(sys.stderr, text)


def _write(stream: TextIO | None, text: str) -> None:
    """Write all of `text`, whatever the locale. Ends the process if the reader has closed the pipe.

    Raises OutputError.
    """
    if stream is None:
        raise OutputError("Standard output is closed, so there is nowhere to print to.")
    encoding = stream.encoding if stream.isatty() else "utf-8"
    out: IO[bytes] = stream.buffer
    try:
        stream.flush()
        out.write(text.encode(encoding or "utf-8", "replace"))
        out.flush()
    except OSError as error:
        fail(stream, error)
