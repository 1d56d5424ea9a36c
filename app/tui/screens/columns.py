"""Lists with columns, of which a narrow window shows fewer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

Row = TypeVar("Row")


@dataclass(frozen=True, slots=True)
class Column(Generic[Row]):
    """One column of a list."""

    title: str
    width: int
    text: Callable[[Row], str]
    is_right: bool = False
    gap: int = 2
    """The cells before it, unless it is the first."""

    def cell(self, text: str) -> str:
        """A text at the width of the column."""
        text = text if len(text) <= self.width else f"{text[: self.width - 1]}…"
        return text.rjust(self.width) if self.is_right else text.ljust(self.width)


Columns = Sequence[Column[Row]]


def fitting(choices: Sequence[Columns[Row]], width: int) -> Columns[Row]:
    """The first choice of columns that fits into `width` cells, else the last."""
    return next((columns for columns in choices if _width(columns) <= width), choices[-1])


def cells(columns: Columns[Row], row: Row) -> str:
    """A row, with the blank after its mark."""
    return _joined(columns, [column.cell(column.text(row)) for column in columns])


def titles(columns: Columns[Row]) -> str:
    """The line above the rows."""
    return " " + _joined(columns, [column.cell(column.title) for column in columns])


def _width(columns: Columns[Row]) -> int:
    """With the mark at the left."""
    return 2 + sum(column.width for column in columns) + sum(column.gap for column in columns[1:])


def _joined(columns: Columns[Row], texts: Sequence[str]) -> str:
    gaps = [1, *(column.gap for column in columns[1:])]
    return "".join(" " * gap + text for gap, text in zip(gaps, texts)).rstrip()
