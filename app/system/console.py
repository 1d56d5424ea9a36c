"""Output on the command line: the only code that writes to standard output and standard error.

A terminal only gets text that cannot steer it; a pipe or file gets the original text in UTF-8. Standard error is
for people and is always made safe.
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import IO, Any, TextIO

from app.text.sanitise import sanitise, sanitise_json

STANDARD_OUTPUT = "-"
"""Stands for standard output in place of a file's name."""
CLEAR_LINE = "\r\x1b[2K"


class Arguments(argparse.ArgumentParser):
    """An argument parser whose errors are safe to print, whatever the arguments contain."""

    def _print_message(self, message: str, file: Any = None) -> None:
        if message:
            _write(file or sys.stderr, sanitise(message))


def say(text: str = "", *, end: str = "\n") -> None:
    """Print a result to standard output."""
    _write(sys.stdout, (sanitise(text) if sys.stdout.isatty() else text) + end)


def say_json(text: str) -> None:
    """Print a JSON result to standard output, with every character that could steer a terminal escaped."""
    _write(sys.stdout, sanitise_json(text) + "\n")


def tell(text: str = "") -> None:
    """Print progress or a hint to standard error."""
    _write(sys.stderr, sanitise(text) + "\n")


def warn(text: str) -> None:
    """Print an error or warning to standard error, after the program's name."""
    tell(f"slipstream: {text}")


def ask(question: str) -> bool:
    """Ask a question; returns whether the answer is yes. Standard input must be a terminal."""
    _write(sys.stderr, f"{sanitise(question)} [y/N] ")
    return sys.stdin.readline().strip().lower() in ("y", "yes")


class MovingLine:
    """A line on standard error that is overwritten again and again, with ordinary lines in between."""

    def __init__(self) -> None:
        self.is_terminal = sys.stderr.isatty()
        self._is_open = False

    def move(self, text: str) -> None:
        """Replace the moving line."""
        self._is_open = True
        _write(sys.stderr, CLEAR_LINE + sanitise(text))

    def say(self, text: str) -> None:
        """Print a line that stays."""
        start = CLEAR_LINE if self._is_open else ""
        self._is_open = False
        _write(sys.stderr, f"{start}{sanitise(text)}\n")

    def close(self) -> None:
        """End the moving line, so that the cursor is at the start of a line."""
        if self._is_open:
            self._is_open = False
            _write(sys.stderr, "\n")


def flush_at_exit() -> None:
    """Flush at the end; if the terminal is gone, discard what is buffered instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _write(stream: TextIO, text: str) -> None:
    """Write all of `text`, whatever the locale. Ends the process if the reader has closed the pipe."""
    encoding = stream.encoding if stream.isatty() else "utf-8"
    out: IO[bytes] = stream.buffer
    try:
        stream.flush()
        out.write(text.encode(encoding or "utf-8", "replace"))
        out.flush()
    except BrokenPipeError:
        # What is buffered must not be written at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        raise SystemExit(0) from None
