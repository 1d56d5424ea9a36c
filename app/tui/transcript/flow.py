"""Rows of text that fit any width: wrapped under their own beginning, tables column by column. No widgets here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Literal

from textual.content import Content

from app.text.figures import MUTED

LEAST_CELLS = 8
"""Text is never wrapped narrower than this, however deep it stands."""
LEAST_COLUMN_CELLS = 4
"""A column with more in it is never made narrower than this."""
BETWEEN_COLUMNS = " │ "

Align = Literal["left", "center", "right"]


@dataclass(frozen=True, slots=True)
class Fitted:
    """One line on the screen."""

    content: Content
    margin: int = 0
    """Characters at the beginning that are not of the text: bullets, bars, indents."""
    joint: str | None = None
    """What stood between this line and the one above before they were wrapped; None: a line of its own."""


class Row:
    """What stands between two line ends of a text."""

    __slots__ = ("_fitted", "_width")

    def __init__(self) -> None:
        self._width: int | None = None
        self._fitted: list[Fitted] = []

    def fit(self, width: int) -> list[Fitted]:
        """The lines it takes, none of them wider than `width` cells if that is at all wide."""
        if width != self._width:
            self._width, self._fitted = width, self._fit(width)
        return self._fitted

    def _fit(self, width: int) -> list[Fitted]:
        raise NotImplementedError


class Line(Row):
    """A text behind a bullet or a bar; what wraps of it stands under its beginning."""

    __slots__ = ("first", "rest", "text")

    def __init__(self, text: Content, first: Content | None = None, rest: Content | None = None) -> None:
        super().__init__()
        self.text = text
        self.first = first or Content()
        self.rest = self.first if rest is None else rest

    def _fit(self, width: int) -> list[Fitted]:
        room = max(LEAST_CELLS, width - max(self.first.cell_length, self.rest.cell_length))
        lines = self.text.wrap(room)
        fitted = [Fitted(self.first + lines[0], len(self.first))]
        end = len(lines[0])
        for line in lines[1:]:
            joint = " " if self.text.plain[end : end + 1].isspace() else ""
            end += len(line)
            while joint and self.text.plain[end - len(line) : end - len(line) + 1].isspace():
                end += 1
            fitted.append(Fitted(self.rest + line, len(self.rest), joint))
        return fitted


class Rule(Row):
    """A line across."""

    __slots__ = ("first",)

    def __init__(self, first: Content) -> None:
        super().__init__()
        self.first = first

    def _fit(self, width: int) -> list[Fitted]:
        rule = Content.styled("─" * max(1, width - self.first.cell_length), MUTED)
        return [Fitted(self.first + rule, len(self.first))]


@dataclass(slots=True)
class Column:
    """How one column of a table stands."""

    align: Align
    width: int = field(default=1)

    def padded(self, text: Content) -> Content:
        """A line of a cell as wide as the column."""
        free = self.width - text.cell_length
        left = {"left": 0, "center": free // 2, "right": free}[self.align]
        return text.pad(left, free - left) if free > 0 else text


class Table(Row):
    """Cells in columns; where they do not fit side by side, the widest are wrapped."""

    __slots__ = ("aligns", "cells", "first")

    def __init__(self, first: Content, aligns: Sequence[Align], cells: Sequence[Sequence[Content]]) -> None:
        """cells: row by row, the head first."""
        super().__init__()
        self.first = first
        self.aligns = aligns
        self.cells = cells

    def _fit(self, width: int) -> list[Fitted]:
        columns = [Column(align) for align in self.aligns]
        for number, column in enumerate(columns):
            column.width = max(1, *(cells[number].cell_length for cells in self.cells if number < len(cells)))
        room = width - self.first.cell_length - len(BETWEEN_COLUMNS) * (len(columns) - 1)
        _narrow(columns, room)
        if sum(column.width for column in columns) > room:
            return self._one_after_another(width)
        lines: list[Fitted] = []
        for number, cells in enumerate(self.cells):
            texts = [cell.stylize("bold") if number == 0 else cell for cell in cells]
            lines += self._side_by_side(columns, texts)
            if number == 0:
                rule = "─┼─".join("─" * column.width for column in columns)
                lines.append(Fitted(self.first + Content.styled(rule, MUTED), len(self.first)))
        return lines

    def _one_after_another(self, width: int) -> list[Fitted]:
        """Rows without columns, wrapped like any text."""
        between = Content.styled(BETWEEN_COLUMNS, MUTED)
        return fit([Line(between.join(cells), self.first) for cells in self.cells], width)

    def _side_by_side(self, columns: list[Column], cells: Sequence[Content]) -> list[Fitted]:
        wrapped = [cell.wrap(column.width) for column, cell in zip(columns, cells)]
        wrapped += [[] for _ in columns[len(wrapped) :]]
        between = Content.styled(BETWEEN_COLUMNS, MUTED)
        lines = [
            between.join(column.padded(part) for column, part in zip(columns, parts))
            for parts in zip_longest(*wrapped, fillvalue=Content())
        ]
        return [Fitted((self.first + line).rstrip(), len(self.first)) for line in lines]


def _narrow(columns: list[Column], room: int) -> None:
    """Take from the widest columns until all of them fit; a few cells of each stay."""
    excess = sum(column.width for column in columns) - room
    while excess > 0 and max(column.width for column in columns) > LEAST_COLUMN_CELLS:
        widest = max(columns, key=lambda column: column.width)
        next_width = max((each.width for each in columns if each.width < widest.width), default=LEAST_COLUMN_CELLS)
        next_width = max(next_width, LEAST_COLUMN_CELLS)
        taken = min(excess, max(1, widest.width - next_width))
        widest.width -= taken
        excess -= taken


def parted(parts: Iterable[Sequence[Row]]) -> list[Row]:
    """The rows of all parts, with an empty one between any two that have rows."""
    rows: list[Row] = []
    for part in filter(None, parts):
        rows += [Line(Content()), *part] if rows else part
    return rows


def fit(rows: Sequence[Row], width: int) -> list[Fitted]:
    """All lines of the rows."""
    return [line for row in rows for line in row.fit(width)]
