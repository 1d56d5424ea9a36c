"""Rows of text that wrap to any width: text behind a prefix, rules, and tables. Contains no widgets."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise, zip_longest
from typing import Literal

from textual.content import Content

from app.text.figures import MUTED

MIN_TEXT_CELLS = 8
"""Text is never wrapped narrower than this, however deeply it is indented."""
MIN_COLUMN_CELLS = 4
"""A wider table column is never shrunk below this."""
COLUMN_SEPARATOR = " │ "

Align = Literal["left", "center", "right"]


@dataclass(frozen=True, slots=True)
class RenderedLine:
    """One line on the screen."""

    content: Content
    prefix_length: int = 0
    """Characters at the start that are not part of the text: bullets, quote bars, indents."""
    joiner: str | None = None
    """The text between the line above and this one before they were wrapped; None: it starts a row of its own."""


class FlowRow:
    """A part of a text between two line breaks. Keeps its lines for the last width."""

    __slots__ = ("_lines", "_width")

    def __init__(self) -> None:
        self._width: int | None = None
        self._lines: list[RenderedLine] = []

    def wrap(self, width: int) -> list[RenderedLine]:
        """The lines of this row, at most `width` cells wide unless its prefix leaves too little for the text."""
        if width != self._width:
            self._width, self._lines = width, self._wrap(width)
        return self._lines

    def position_at(self, width: int, line: int) -> float:
        """Where a line is in this row: comparable between widths, and 0 for the first line."""
        return line / len(self.wrap(width))

    def line_at(self, width: int, position: float) -> int:
        """The line at this position."""
        return min(round(position * len(self.wrap(width))), len(self.wrap(width)) - 1)

    def _wrap(self, width: int) -> list[RenderedLine]:
        raise NotImplementedError


class TextRow(FlowRow):
    """Text behind a prefix, such as a bullet or a quote bar. Wrapped lines have a prefix of their own."""

    __slots__ = ("first_prefix", "rest_prefix", "text")

    def __init__(
        self, text: Content, first_prefix: Content | None = None, rest_prefix: Content | None = None
    ) -> None:
        """rest_prefix: that of all lines but the first; None: the same."""
        super().__init__()
        self.text = text
        self.first_prefix = first_prefix or Content()
        self.rest_prefix = self.first_prefix if rest_prefix is None else rest_prefix

    def position_at(self, width: int, line: int) -> float:
        """In characters."""
        return self._line_starts(width)[line]

    def line_at(self, width: int, position: float) -> int:
        """The line with the character at this position."""
        return bisect_right(self._line_starts(width), position) - 1

    def _line_starts(self, width: int) -> list[int]:
        lines = self.wrap(width)
        return list(
            accumulate(
                (
                    len(line.content) - line.prefix_length + len(following.joiner or "")
                    for line, following in pairwise(lines)
                ),
                initial=0,
            )
        )

    def _wrap(self, width: int) -> list[RenderedLine]:
        room = max(MIN_TEXT_CELLS, width - max(self.first_prefix.cell_length, self.rest_prefix.cell_length))
        parts = self.text.wrap(room)
        lines = [RenderedLine(self.first_prefix + parts[0], len(self.first_prefix))]
        end = len(parts[0])
        for part in parts[1:]:
            joiner = " " if self.text.plain[end : end + 1].isspace() else ""
            end += len(part)
            while joiner and self.text.plain[end - len(part) : end - len(part) + 1].isspace():
                end += 1
            lines.append(RenderedLine(self.rest_prefix + part, len(self.rest_prefix), joiner))
        return lines


class RuleRow(FlowRow):
    """A horizontal rule."""

    __slots__ = ("prefix",)

    def __init__(self, prefix: Content) -> None:
        super().__init__()
        self.prefix = prefix

    def _wrap(self, width: int) -> list[RenderedLine]:
        rule = Content.styled("─" * max(1, width - self.prefix.cell_length), MUTED)
        return [RenderedLine(self.prefix + rule, len(self.prefix))]


@dataclass(slots=True)
class TableColumn:
    """Alignment and width of one column."""

    align: Align
    width: int = field(default=1)

    def pad(self, text: Content) -> Content:
        """A line of a cell, padded to the width of the column."""
        free_cells = self.width - text.cell_length
        left = {"left": 0, "center": free_cells // 2, "right": free_cells}[self.align]
        return text.pad(left, free_cells - left) if free_cells > 0 else text


class WholeTable(FlowRow):
    """A table. When its columns do not fit side by side, the widest are wrapped."""

    __slots__ = ("aligns", "cells", "prefix")

    def __init__(self, prefix: Content, aligns: Sequence[Align], cells: Sequence[Sequence[Content]]) -> None:
        """cells: row by row, the head first."""
        super().__init__()
        self.prefix = prefix
        self.aligns = aligns
        self.cells = cells

    def _wrap(self, width: int) -> list[RenderedLine]:
        columns = [TableColumn(align) for align in self.aligns]
        for number, column in enumerate(columns):
            cells_of_column = [cells[number] for cells in self.cells if number < len(cells)]
            column.width = max(1, *(line.cell_length for cell in cells_of_column for line in _lines_of(cell)))
        room = width - self.prefix.cell_length - len(COLUMN_SEPARATOR) * (len(columns) - 1)
        if sum(min(column.width, MIN_COLUMN_CELLS) for column in columns) > room:
            return self._as_text(width)
        _shrink(columns, room)
        lines: list[RenderedLine] = []
        for number, cells in enumerate(self.cells):
            texts = [cell.stylize("bold") if number == 0 else cell for cell in cells]
            lines += self._side_by_side(columns, texts)
            if number == 0:
                rule = "─┼─".join("─" * column.width for column in columns)
                lines.append(RenderedLine(self.prefix + Content.styled(rule, MUTED), len(self.prefix)))
        return lines

    def _as_text(self, width: int) -> list[RenderedLine]:
        """The cells of each row one after another, wrapped like ordinary text."""
        separator = Content.styled(COLUMN_SEPARATOR, MUTED)
        texts = [separator.join(cells) for cells in self.cells]
        return wrap_rows([TextRow(line, self.prefix) for text in texts for line in _lines_of(text)], width)

    def _side_by_side(self, columns: list[TableColumn], cells: Sequence[Content]) -> list[RenderedLine]:
        wrapped = [
            [part for line in _lines_of(cell) for part in line.wrap(column.width)]
            for column, cell in zip(columns, cells)
        ]
        wrapped += [[] for _ in columns[len(wrapped) :]]
        separator = Content.styled(COLUMN_SEPARATOR, MUTED)
        lines = [
            separator.join(column.pad(part) for column, part in zip(columns, parts))
            for parts in zip_longest(*wrapped, fillvalue=Content())
        ]
        return [RenderedLine((self.prefix + line).rstrip(), len(self.prefix)) for line in lines]


def _lines_of(text: Content) -> list[Content]:
    return text.split("\n", allow_blank=True)


def _shrink(columns: list[TableColumn], room: int) -> None:
    """Take cells from the widest columns until all fit, or until each is down to `MIN_COLUMN_CELLS`."""
    excess = sum(column.width for column in columns) - room
    while excess > 0 and max(column.width for column in columns) > MIN_COLUMN_CELLS:
        widest = max(columns, key=lambda column: column.width)
        next_width = max((each.width for each in columns if each.width < widest.width), default=MIN_COLUMN_CELLS)
        next_width = max(next_width, MIN_COLUMN_CELLS)
        taken = min(excess, max(1, widest.width - next_width))
        widest.width -= taken
        excess -= taken


def join_with_blank_rows(parts: Iterable[Sequence[FlowRow]]) -> list[FlowRow]:
    """The rows of all parts, with a blank row between any two parts that have rows."""
    rows: list[FlowRow] = []
    for part in filter(None, parts):
        rows += [TextRow(Content()), *part] if rows else part
    return rows


def wrap_rows(rows: Sequence[FlowRow], width: int) -> list[RenderedLine]:
    """The lines of all rows."""
    return [line for row in rows for line in row.wrap(width)]
