"""What is said in the shell: the only place that writes to standard output and standard error.

A terminal gets only text that cannot steer it; a pipe or file gets what was said, in UTF-8. What goes to standard
error is for people and is made safe wherever it goes.
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import IO, Any, TextIO

from app.text.sanitise import sanitise, sanitise_json

STANDARD_OUTPUT = "-"
"""In place of the name of a file."""
CLEAR_LINE = "\r\x1b[2K"


class Arguments(argparse.ArgumentParser):
    """Says what is wrong with an argument without letting the argument speak to the terminal."""

    def _print_message(self, message: str, file: Any = None) -> None:
        if message:
            _write(file or sys.stderr, sanitise(message))


def say(text: str = "", *, end: str = "\n") -> None:
    """An answer, on standard output."""
    _write(sys.stdout, (sanitise(text) if sys.stdout.isatty() else text) + end)


def say_json(text: str) -> None:
    """An answer for programs: JSON, with every character that could steer a terminal as an escape."""
    _write(sys.stdout, sanitise_json(text) + "\n")


def tell(text: str = "") -> None:
    """Something on the side, on standard error."""
    _write(sys.stderr, sanitise(text) + "\n")


def warn(text: str) -> None:
    """What went wrong, or has to be known, on standard error."""
    tell(f"slipstream: {text}")


def ask(question: str) -> bool:
    """Whether the person says yes. Somebody must be there to ask."""
    _write(sys.stderr, f"{sanitise(question)} [y/N] ")
    return sys.stdin.readline().strip().lower() in ("y", "yes")


class MovingLine:
    """A line of standard error that is written over and over, and ordinary lines between."""

    def __init__(self) -> None:
        self.is_terminal = sys.stderr.isatty()
        self._is_open = False

    def move(self, text: str) -> None:
        """Show this in place of what was there."""
        self._is_open = True
        _write(sys.stderr, CLEAR_LINE + sanitise(text))

    def say(self, text: str) -> None:
        """A line that stays."""
        start = CLEAR_LINE if self._is_open else ""
        self._is_open = False
        _write(sys.stderr, f"{start}{sanitise(text)}\n")

    def close(self) -> None:
        """Leave the cursor at the beginning of a line."""
        if self._is_open:
            self._is_open = False
            _write(sys.stderr, "\n")


def let_go() -> None:
    """At the end, with the terminal perhaps gone: what is still in the buffers must not become an error."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _write(stream: TextIO, text: str) -> None:
    """All of `text`, whatever the locale can hold. Ends the command if nobody reads any more."""
    encoding = stream.encoding if stream.isatty() else "utf-8"
    out: IO[bytes] = stream.buffer
    try:
        stream.flush()
        out.write(text.encode(encoding or "utf-8", "replace"))
        out.flush()
    except BrokenPipeError:
        # What is still in the buffer must not be written at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        raise SystemExit(0) from None
