"""Wraps streamed text at words, for terminals that would break it anywhere. Knows no screen."""

from __future__ import annotations

import re
import unicodedata

_PARTS = re.compile(r"\n|[^\S\n]+|\S+")
_TAB_CELLS = 8


class WordWrap:
    """Adds line breaks after blanks. Keeps the column from piece to piece; a word may be split over two pieces."""

    def __init__(self) -> None:
        self.column = 0
        """Cells of the last line so far."""
        self._is_after_blank = False

    def add(self, text: str, width: int) -> str:
        """The text with line breaks. width: in cells; 0: do not wrap."""
        return "".join(self._part(part, width) for part in _PARTS.findall(text))

    def begin_line(self) -> None:
        """The cursor is at the start of a line, because the person has pressed enter."""
        self.column, self._is_after_blank = 0, False

    def _part(self, part: str, width: int) -> str:
        if part == "\n":
            self.begin_line()
            return part
        if part.isspace():
            shown = part[: max(0, width - self.column)] if width else part
            self.column += _cells(shown, self.column)
            self._is_after_blank = True
            return shown
        cells = _cells(part, self.column)
        is_broken = bool(width) and self._is_after_blank and self.column > 0 and self.column + cells > width
        self.column = cells if is_broken else self.column + cells
        if width and self.column > width:
            self.column = self.column % width or width
        self._is_after_blank = False
        return f"\n{part}" if is_broken else part


def _cells(text: str, column: int) -> int:
    """The cells of a text without line breaks that begins at a column."""
    end = column
    for character in text:
        if character == "\t":
            end += _TAB_CELLS - end % _TAB_CELLS
        elif not unicodedata.combining(character):
            end += 2 if unicodedata.east_asian_width(character) in "WF" else 1
    return end - column
