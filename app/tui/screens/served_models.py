"""The list of the models that a server has, to chat with another of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.widgets import Input, OptionList, Static

from app.text.sanitise import sanitise_line
from app.tui.screens.line_input import LineInput
from app.tui.screens.list_moves import MOVE_KEYS, move_highlight
from app.tui.screens.overlay import Overlay
from app.tui.screens.row_list import RowList

CURRENT = "●"
FILTER_HINT = "Type to filter"
KEYS = "enter: chat with it · esc: close"


class ServedModelsScreen(Overlay[str | None]):
    """Returns the name of the model to switch to; None when closed without choosing one."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,f2", "dismiss(None)", "Close", tooltip="closes the list"),
        *MOVE_KEYS,
    ]

    def __init__(self, models: Sequence[str], current: str) -> None:
        """models: their names, as requests use them. current: the one in use."""
        super().__init__()
        self._models, self._current = models, current
        self._shown: list[str] = []
        """Those that match the filter."""
        self._listed_filter: str | None = None
        """The filter that the list shows the matches of; None before the first."""
        self._filter = LineInput("", FILTER_HINT, id="models-search", compact=True)
        self._list = RowList(id="models-list", markup=False)
        self._hint = Static(KEYS, id="models-hint", markup=False)

    def compose(self) -> ComposeResult:
        with Vertical(id="models"):
            yield self._filter
            yield self._list
            yield self._hint

    def on_mount(self) -> None:
        """Focus the filter."""
        self._list.can_focus = False
        self._filter.focus()
        self._show()

    @on(Input.Changed)
    def _show(self) -> None:
        """List the matches, if the filter has changed; at once, before keys that were typed behind it."""
        if self._listed_filter == self._filter.value:
            return
        self._listed_filter = self._filter.value
        words = self._listed_filter.lower().split()
        self._shown = [name for name in self._models if all(word in name.lower() for word in words)]
        marks = (CURRENT if name == self._current else " " for name in self._shown)
        self._list.clear_options()
        self._list.add_options([f"{mark} {sanitise_line(name)}" for mark, name in zip(marks, self._shown)])
        if self._shown:
            self._list.highlighted = self._shown.index(self._current) if self._current in self._shown else 0

    def action_enter(self) -> None:
        """Chat with the highlighted model."""
        self._show()
        if (row := self._list.highlighted) is not None:
            self.dismiss(self._shown[row])

    @on(OptionList.OptionSelected)
    def _clicked(self, event: OptionList.OptionSelected) -> None:
        self.dismiss(self._shown[event.option_index])

    def action_move(self, direction: str) -> None:
        """Move the highlight; the filter keeps the focus."""
        self._show()
        move_highlight(self._list, direction)
