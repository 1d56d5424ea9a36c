"""A screen over the chat with tables of names and their meanings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import ClassVar

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.widgets import Input, Static

from app.tui.screens.line_input import LineInput
from app.tui.screens.overlay import Overlay

NAME_COLUMNS = 22
SIDE_BY_SIDE_COLUMNS = 50
"""From this window width on, a meaning is shown beside its name; in narrower windows, below it."""
TWO_TABLES_COLUMNS = 110
"""From this window width on, the first table is shown beside the others."""
LOW_ROWS = 8
"""A lower window has no room for the search, and says in its frame how to close it."""
CLOSE = "esc closes this"
SEARCH_KEYS = f"{CLOSE} · type to search · up and down scroll"
NARROW_SEARCH_KEYS = f"{CLOSE} · type to search"

TableRows = Iterable[tuple[str, str]]


class TableScreen(Overlay[None]):
    """Tables that scroll when the window is too small for them, and a line that says how to close them."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,f1", "dismiss", "Close", tooltip="closes this"),
        Binding("down", "scroll(1)", "Down", show=False),
        Binding("up", "scroll(-1)", "Up", show=False),
        Binding("pagedown", "page(1)", "Page down", show=False),
        Binding("pageup", "page(-1)", "Page up", show=False),
    ]

    def __init__(self, tables: Sequence[tuple[str, TableRows]], *, is_searchable: bool = False) -> None:
        """tables: title and rows of each."""
        super().__init__()
        self._tables = [(title, list(rows)) for title, rows in tables]
        self._is_searchable = is_searchable
        self._search = LineInput("", "Search keys, gauges and commands", id="help-search", compact=True)
        self._left = Static(classes="help-column", markup=False)
        self._right = Static(classes="help-column", markup=False)
        columns = Horizontal(self._left, self._right, id="help-columns")
        self._scroll = VerticalScroll(columns, id="help-scroll", can_focus=False)
        self._close = Static(CLOSE, id="help-close", markup=False)

    def compose(self) -> ComposeResult:
        with Vertical(id="help") as box:
            if self._is_searchable:
                yield self._search
            yield self._scroll
            yield self._close
        self._box = box

    def on_mount(self) -> None:
        """Focus the search."""
        if self._is_searchable:
            self._search.focus()
        self._show()

    def on_resize(self) -> None:
        """Arrange the tables for this window."""
        self._show()

    @on(Input.Changed)
    def _searched(self) -> None:
        self._scroll.scroll_home(animate=False)
        self._show()

    def action_scroll(self, lines: int) -> None:
        self._scroll.scroll_relative(y=lines, animate=False, immediate=True)

    def action_page(self, pages: int) -> None:
        self._scroll.scroll_relative(y=pages * self._scroll.size.height, animate=False, immediate=True)

    def _show(self) -> None:
        width, height = self.app.size
        # Beside the tables: the frame, the search, the line that says how to close it, and the key line below.
        room = max(1, height - 2) if height < LOW_ROWS else height - 4 - 2 * self._is_searchable
        self._scroll.styles.max_height = room
        self._scroll.styles.height = room if self._is_searchable else "auto"
        self._box.border_subtitle = ""
        if height < LOW_ROWS:
            self._box.border_subtitle = CLOSE
        has_two = width >= TWO_TABLES_COLUMNS and len(self._tables) > 1
        self.set_class(has_two, "-two")
        words = self._search.value.lower().split()
        tables = [(title, [row for row in rows if _matches(row, words)]) for title, rows in self._tables]
        split = 1 if has_two else len(tables)
        render: Callable[[TableRows], RenderableType] = (
            _side_by_side if width >= SIDE_BY_SIDE_COLUMNS else _stacked
        )
        self._right.display = has_two
        has_rows = any(rows for _, rows in tables)
        self._left.update(_column(tables[:split], render, "" if has_rows else "Nothing matches."))
        self._right.update(_column(tables[split:], render))
        if self._is_searchable:
            self._close.update(SEARCH_KEYS if width >= SIDE_BY_SIDE_COLUMNS else NARROW_SEARCH_KEYS)


def _matches(row: tuple[str, str], words: Sequence[str]) -> bool:
    text = " ".join(row).lower()
    return all(word in text for word in words)


def _column(
    tables: Sequence[tuple[str, list[tuple[str, str]]]],
    render: Callable[[TableRows], RenderableType],
    otherwise: str = "",
) -> RenderableType:
    """One table below the other, without those that have no rows. otherwise: shown if no table has any."""
    parts: list[RenderableType] = []
    for title, rows in tables:
        if rows:
            parts += [Text(title, "bold underline"), render(rows), Text("")]
    return Group(*parts[:-1]) if parts else Text(otherwise)


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
