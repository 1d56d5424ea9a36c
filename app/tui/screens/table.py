"""A screen over the chat with tables of names and their meanings."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

from rich.table import Table
from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

NAME_COLUMNS = 22
SIDE_BY_SIDE_COLUMNS = 50
"""From this window width on, a meaning is shown beside its name; in narrower windows, below it."""

TableRows = Iterable[tuple[str, str]]


class TableScreen(ModalScreen[None]):
    """Tables, one below the other, that scroll when the window is too small for them."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,f1,q", "dismiss", "Close", tooltip="closes this")]

    def __init__(self, tables: Sequence[tuple[str, TableRows]]) -> None:
        """tables: title and rows of each."""
        super().__init__()
        self._tables = tables

    def compose(self) -> ComposeResult:
        render = _side_by_side if self.app.size.width >= SIDE_BY_SIDE_COLUMNS else _stacked
        with VerticalScroll(id="help"):
            for title, rows in self._tables:
                yield Static(title, classes="help-title", markup=False)
                yield Static(render(rows), classes="help-table", markup=False)
            yield Static("esc closes this", classes="help-close", markup=False)


def _side_by_side(rows: TableRows) -> Table:
    # One renderable for the whole table: a widget per row would take a second to lay out.
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(width=NAME_COLUMNS, overflow="fold")
    table.add_column(overflow="fold")
    for name, meaning in rows:
        table.add_row(Text(name, "bold"), Text(meaning))
    return table


def _stacked(rows: TableRows) -> Text:
    return Text("\n").join(Text.assemble((name, "bold"), f"\n{meaning}") for name, meaning in rows)
