"""Asked when the chat ends while its file cannot be written: where to keep what is only in memory."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.widgets import Static

from app.core.unsaved import keep_unsaved
from app.store.chat_store import ChatStore
from app.store.errors import StoreError
from app.text.sanitise import sanitise
from app.tui.screens.line_input import LineInput
from app.tui.screens.overlay import Overlay


class UnsavedScreen(Overlay[bool]):
    """Returns whether to quit."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "dismiss(False)", "Back", tooltip="goes back to the chat")
    ]
    DEFAULT_CSS = """
    UnsavedScreen { align: center middle; }
    UnsavedScreen #unsaved {
        width: 76; max-width: 100%; height: auto; max-height: 100%; padding: 1 2; background: $panel;
    }
    UnsavedScreen Static { height: auto; }
    UnsavedScreen Input { margin: 1 0; }
    """

    def __init__(self, store: ChatStore, unsaved: str, quit_key: str) -> None:
        """unsaved: what is not saved, as a clause."""
        super().__init__()
        self._store = store
        self._input = LineInput(placeholder="a file on another disk, such as /tmp/chats.json", compact=True)
        self._text = Static(sanitise(f"{unsaved}. The file of chats cannot be written."), markup=False)
        keys = f"enter keeps them in this file and quits · {quit_key} quits without · esc: back"
        self._hint = Static(keys, markup=False)

    def compose(self) -> ComposeResult:
        with Vertical(id="unsaved"):
            yield self._text
            yield self._input
            yield self._hint

    def on_mount(self) -> None:
        """Ask for the path."""
        self._input.focus()

    def action_enter(self) -> None:
        """Keep what is not saved in the file that was typed, and quit."""
        if not self._input.value.strip():
            return
        try:
            keep_unsaved(self._store, self._input.value.strip())
        except StoreError as error:
            self._hint.update(sanitise(str(error)))
        else:
            self.dismiss(True)
