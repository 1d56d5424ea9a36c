"""The list of chats: search, open, rename, delete, and undo a deletion."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.message import Message
from textual.timer import Timer
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from app.store.chat_store import ChatStore
from app.store.errors import StoreError
from app.store.records import Chat
from app.text.figures import day
from app.text.sanitise import sanitise, sanitise_line
from app.tui.screens.line_input import LineInput
from app.tui.screens.list_moves import MOVE_KEYS, move_highlight
from app.tui.screens.overlay import Overlay
from app.tui.screens.row_list import RowList

MOST_SHOWN = 200
"""A search finds the others. Wrapping thousands of titles would slow down every key."""
SEARCH_DELAY_S = 0.15
"""After the last key, so that a word is searched for once and not once per letter."""
SEARCH_HINT = "Search titles and messages"
KEYS = "enter: open · ctrl+r: rename · ctrl+d: delete · ctrl+z: undo · esc: close"


class ChatsScreen(Overlay[tuple[int, str] | None]):
    """Returns the id of the chat to open and the query that matched it; None when closed without opening one."""

    @dataclass
    class Deleted(Message):
        """A chat was deleted; undo can still restore it."""

        chat_id: int

    @dataclass
    class Restored(Message):
        """A deleted chat is back in the list."""

        chat_id: int

    @dataclass
    class Renamed(Message):
        """A chat has a new title."""

        chat: Chat

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "close", "Close", tooltip="cancels renaming, or closes the list"),
        Binding("f4", "dismiss(None)", show=False),
        *MOVE_KEYS,
        # With priority, because the search input uses these keys for editing. Letters typed before one of them may
        # still be in the input's queue, so the actions wait in that queue too.
        Binding("ctrl+r", "rename", "Rename", priority=True, tooltip="changes the title of the chat"),
        Binding("ctrl+d", "delete", "Delete", priority=True, tooltip="deletes the chat"),
        Binding("ctrl+z", "undo", "Undo", priority=True, tooltip="restores the chat deleted last"),
    ]

    def __init__(self, store: ChatStore, query: str = "", open_id: int | None = None) -> None:
        """query: the search to open with. open_id: the chat to mark as open."""
        super().__init__()
        self._store = store
        self._open_id = open_id
        self._chats: list[Chat] = []
        self._renaming: Chat | None = None
        self._listed_query = ""
        """The query that the list currently shows matches of. Renaming uses its input, and gives it back."""
        self._search_timer: Timer | None = None
        self._input = LineInput(query, SEARCH_HINT, id="chats-search", compact=True)
        self._list = RowList(id="chats-list", markup=False)
        self._hint = Static(id="chats-hint", markup=False)

    def compose(self) -> ComposeResult:
        with Vertical(id="chats"):
            yield self._input
            yield self._list
            yield self._hint

    def on_mount(self) -> None:
        """Focus the search and list the most recent chats."""
        self._list.can_focus = False
        self._show_matches()
        self._input.focus()

    @on(Input.Changed)
    def _query_changed(self) -> None:
        if self._renaming is None:
            if self._search_timer is not None:
                self._search_timer.stop()
            self._search_timer = self.set_timer(SEARCH_DELAY_S, self._search_now)

    def _search_now(self) -> None:
        """Bring the list up to date, so that no action reaches a chat that the query no longer matches."""
        if self._renaming is None and self._input.value != self._listed_query:
            self._show_matches()

    def action_enter(self) -> None:
        """Save the title, or open the highlighted chat."""
        if self._renaming is not None:
            self._finish_renaming(self._renaming)
        elif (chat := self._highlighted_chat()) is not None:
            self.dismiss((chat.id, self._input.value))

    @on(OptionList.OptionSelected)
    def _clicked(self, event: OptionList.OptionSelected) -> None:
        self.dismiss((self._chats[event.option_index].id, self._input.value))

    def action_move(self, direction: str) -> None:
        """Move the highlight; the search keeps the focus."""
        self._search_now()
        move_highlight(self._list, direction)

    def action_close(self) -> None:
        """Cancel renaming, or close the list."""
        if self._renaming is not None:
            self._end_renaming()
        else:
            self.dismiss(None)

    def action_rename(self) -> None:
        """Edit the highlighted chat's title in the search input."""
        self._input.call_later(self._rename)

    def action_delete(self) -> None:
        self._input.call_later(self._delete)

    def action_undo(self) -> None:
        self._input.call_later(self._undo)

    def _rename(self) -> None:
        if self._renaming is None and (chat := self._highlighted_chat()) is not None:
            self._renaming = chat
            self._input.value = sanitise_line(chat.title)
            self._input.action_end()
            self._input.placeholder = "Title"
            self._show_hint("enter saves the title · esc cancels")

    def _delete(self) -> None:
        if self._renaming is not None or (chat := self._highlighted_chat()) is None:
            return
        try:
            self._store.delete(chat.id)
        except StoreError as error:
            self._show_hint(str(error))
            return
        self.post_message(self.Deleted(chat.id))
        self._show_matches(row=self._list.highlighted or 0)
        self._show_hint(f"Deleted “{chat.title}”. Press ctrl+z to undo.")

    def _undo(self) -> None:
        if self._renaming is not None:
            return
        try:
            chat = self._store.undo_delete()
        except StoreError as error:
            self._show_hint(str(error))
            return
        if chat is not None:
            self.post_message(self.Restored(chat.id))
        self._show_matches(chat.id if chat else None, self._list.highlighted or 0)
        self._show_hint(f"Restored “{chat.title}”." if chat else "Nothing to undo.")

    def _highlighted_chat(self) -> Chat | None:
        self._search_now()
        row = self._list.highlighted if self._input.value == self._listed_query else None
        return self._chats[row] if row is not None and row < len(self._chats) else None

    def _finish_renaming(self, chat: Chat) -> None:
        try:
            self.post_message(self.Renamed(self._store.rename(chat.id, self._input.value)))
        except StoreError as error:
            self._show_hint(str(error))
            return
        self._end_renaming()

    def _end_renaming(self) -> None:
        renamed, self._renaming = self._renaming, None
        self._input.value = self._listed_query
        self._input.action_end()
        self._input.placeholder = SEARCH_HINT
        self._show_matches(renamed.id if renamed else None, self._list.highlighted or 0)

    def _show_matches(self, chat_id: int | None = None, row: int = 0) -> None:
        """List the matches. chat_id: the chat to highlight; row: the row to highlight if it is not among them."""
        query = self._input.value
        try:
            self._chats = self._store.list_chats(query, limit=MOST_SHOWN)
        except StoreError as error:
            self._show_hint(str(error))
            return
        self._listed_query = query
        self._list.clear_options()
        self._list.add_options([Option(_chat_row(chat, chat.id == self._open_id)) for chat in self._chats])
        rows = {chat.id: number for number, chat in enumerate(self._chats)}
        self._list.highlighted = rows.get(chat_id or 0, min(row, len(rows) - 1)) if rows else None
        if self._chats:
            self._show_hint(KEYS)
        else:
            self._show_hint("No chat matches this search." if query.strip() else "No chats yet.")

    def _show_hint(self, text: str) -> None:
        self._hint.update(sanitise(text))


def _chat_row(chat: Chat, is_open: bool) -> Content:
    title = sanitise_line(chat.title or "Untitled")
    count = f"{chat.message_count} message{'s' * (chat.message_count != 1)}"
    # Without colours and dimming, which could not be read in a selected row.
    mark, style = ("● ", "bold") if is_open else ("  ", "")
    return Content.styled(f"{mark}{day(chat.updated_s)}  {title}  {count}", style)
