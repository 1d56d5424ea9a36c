"""Lines from a person and to them, over two streams: typed lines are checked, what is said is wrapped at words."""

from __future__ import annotations

import os
from typing import BinaryIO, TextIO

from app.system.console import fail
from app.text.sanitise import sanitise
from app.text.wrapping import WordWrap
from mlx_engine.protocol.errors import SlipstreamError

TAKEN_BYTES = 3
"""Terminals differ by so much in how many bytes of their limit a line can have."""


class NotUtf8Error(SlipstreamError):
    """A typed line that is not valid UTF-8."""


class LineCutError(SlipstreamError):
    """A typed line that is too long for the terminal, which has dropped its end."""


class Lines:
    """What is said is sanitised here, and nowhere else."""

    def __init__(
        self, typed: BinaryIO, out: TextIO, *, is_prompting: bool = True, max_line_bytes: int | None = None
    ) -> None:
        """typed: UTF-8. is_prompting: whether to print prompts, for a person at a terminal. max_line_bytes: what
        the terminal takes in a line."""
        self.is_prompting = is_prompting
        self._typed, self._out = typed, out
        self._max_line_bytes = max_line_bytes
        self._wrap = WordWrap()

    def read(self, prompt: str) -> str | None:
        """The next line without its end; None at the end of the input. Raises NotUtf8Error, LineCutError."""
        if self.is_prompting:
            self.write(prompt)
        data = self._typed.readline()
        if data and self.is_prompting:
            self._wrap.begin_line()
        if self._max_line_bytes is not None and len(data) >= self._max_line_bytes - TAKEN_BYTES:
            raise LineCutError(
                f"That line was not sent: this terminal cuts lines of {self._max_line_bytes:,} bytes. Put the "
                "text in a file and attach it with @ and its path, or end shorter lines with a backslash."
            )
        return _text(data) if data else None

    def read_message(self, prompt: str) -> str | None:
        """Lines up to the first that does not end with a backslash; None at the end of the input."""
        lines: list[str] = []
        while True:
            line = self.read("and: " if lines else prompt)
            if line is None:
                return "\n".join(lines) or None
            if not line.endswith("\\"):
                return "\n".join([*lines, line])
            lines.append(line[:-1])

    def say(self, line: str) -> None:
        """Print a line."""
        self.write(f"{line}\n")

    def write(self, text: str) -> None:
        """Print a text; the next one continues its last line."""
        if not text:
            return
        try:
            self._out.write(self._wrap.add(sanitise(text), self._columns()))
            self._out.flush()
        except OSError as error:
            fail(self._out, error)

    def note_interrupt(self) -> None:
        """The terminal has shown a control c."""
        if self.is_prompting:
            self._wrap.add("^C", 0)

    def end_line(self) -> None:
        """Go to the next line, unless this one is empty. Raises OSError."""
        if self._wrap.column:
            self.write("\n")

    @property
    def size(self) -> str:
        """Columns and lines of the terminal, for people."""
        try:
            columns, rows = os.get_terminal_size(self._out.fileno())
        except (OSError, ValueError):
            return "not a terminal"
        return f"{columns} x {rows}"

    def _columns(self) -> int:
        """Of the terminal; 0 if the output is none."""
        try:
            return os.get_terminal_size(self._out.fileno()).columns
        except (OSError, ValueError):
            return 0


def _text(data: bytes) -> str:
    """A line without its end. Raises NotUtf8Error."""
    try:
        return data.decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise NotUtf8Error(
            f"That line was not sent: it is not UTF-8 (byte {error.start + 1} is {data[error.start]:#04x}). "
            "Set the terminal to UTF-8, or convert the file first, for example with iconv."
        ) from None
