"""Tables of a name and its meaning, over the chat."""

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
BESIDE_FROM_COLUMNS = 50
"""In a window of so many columns a meaning stands beside its name, in a narrower one below it."""

Rows = Iterable[tuple[str, str]]


class TableScreen(ModalScreen[None]):
    """Scrollable where the window is small; knows nothing of what it says."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,f1,q", "dismiss", "Close", tooltip="closes the help")]

    def __init__(self, tables: Sequence[tuple[str, Rows]]) -> None:
        """tables: each with its title."""
        super().__init__()
        self._tables = tables

    def compose(self) -> ComposeResult:
        """One table below the other."""
        table = _table if self.app.size.width >= BESIDE_FROM_COLUMNS else _list
        with VerticalScroll(id="help"):
            for title, rows in self._tables:
                yield Static(title, classes="help-title", markup=False)
                yield Static(table(rows), classes="help-table", markup=False)
            yield Static("escape closes this", classes="help-close", markup=False)


def _table(rows: Rows) -> Table:
    """One widget for all of it: a hundred would take a second to be laid out."""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(width=NAME_COLUMNS, overflow="fold")
    table.add_column(overflow="fold")
    for name, meaning in rows:
        table.add_row(Text(name, "bold"), Text(meaning))
    return table


def _list(rows: Rows) -> Text:
    return Text("\n").join(Text.assemble((name, "bold"), f"\n{meaning}") for name, meaning in rows)
