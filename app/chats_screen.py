"""The list of chats: search, open, rename, delete and bring back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.message import Message
from textual.screen import ModalScreen
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from app.figures import MUTED
from app.sanitise import sanitise, sanitise_line
from app.store.chat_store import ChatStore
from app.store.errors import StoreError
from app.store.records import Chat

MOST_SHOWN = 200
"""More are found by searching; wrapping thousands of titles takes time on every key."""
SEARCH_S = 0.15
"""After the last key: a word is searched for once, not once a letter."""


class ChatsScreen(ModalScreen[tuple[int, str] | None]):
    """Returns the id of the chat to open, and the words it was found by; None: stay.

    What is typed searches titles and messages.
    """

    @dataclass
    class Deleted(Message):
        """A chat is out of sight."""

        chat_id: int

    @dataclass
    class Restored(Message):
        """A deleted chat is in sight again."""

        chat_id: int

    @dataclass
    class Renamed(Message):
        """A chat has another title."""

        chat: Chat

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "close", "Close", tooltip="closes the list, or leaves renaming"),
        Binding("f4", "dismiss(None)", show=False),
        Binding("down", "move('down')", show=False),
        Binding("up", "move('up')", show=False),
        Binding("pagedown", "move('page_down')", show=False),
        Binding("pageup", "move('page_up')", show=False),
        # Ahead of the search line's own editing keys.
        Binding("ctrl+r", "rename", "Rename", priority=True, tooltip="gives the chat another title"),
        Binding("ctrl+d", "delete", "Delete", priority=True, tooltip="takes the chat out of the list"),
        Binding("ctrl+z", "undo", "Undo", priority=True, tooltip="brings back the chat deleted last"),
    ]

    def __init__(self, store: ChatStore, words: str = "") -> None:
        """words: what is searched for at first."""
        super().__init__()
        self._store = store
        self._chats: list[Chat] = []
        self._renamed: Chat | None = None
        self._searching = 0
        self._input = Input(words, "Search titles and messages", id="chats-search", compact=True)
        self._list = OptionList(id="chats-list", markup=False)
        self._hint = Static(id="chats-hint", markup=False)

    def compose(self) -> ComposeResult:
        """What is searched for, the chats, and the keys."""
        with Vertical(id="chats"):
            yield self._input
            yield self._list
            yield self._hint

    def on_mount(self) -> None:
        """Land in the search, with the chats used last."""
        self._list.can_focus = False
        self._show()
        self._input.focus()

    @on(Input.Changed)
    def _type(self) -> None:
        if self._renamed is None:
            self._searching += 1
            self.set_timer(SEARCH_S, partial(self._search, self._searching))

    def _search(self, request: int) -> None:
        if request == self._searching and self._renamed is None:
            self._show()

    @on(Input.Submitted)
    def _enter(self) -> None:
        if self._renamed is not None:
            self._finish_renaming(self._renamed)
        elif (chat := self._chosen) is not None:
            self.dismiss((chat.id, self._input.value))

    @on(OptionList.OptionSelected)
    def _click(self, event: OptionList.OptionSelected) -> None:
        self.dismiss((self._chats[event.option_index].id, self._input.value))

    def action_move(self, direction: str) -> None:
        """The arrows move in the list while the person types."""
        moves: dict[str, Callable[[], None]] = {
            "down": self._list.action_cursor_down,
            "up": self._list.action_cursor_up,
            "page_down": self._list.action_page_down,
            "page_up": self._list.action_page_up,
        }
        moves[direction]()

    def action_close(self) -> None:
        """Leave renaming, or the list."""
        if self._renamed is not None:
            self._end_renaming()
        else:
            self.dismiss(None)

    def action_rename(self) -> None:
        """Type a new title in place of the search."""
        if (chat := self._chosen) is not None and self._renamed is None:
            self._renamed = chat
            self._input.value = sanitise_line(chat.title)
            self._input.placeholder = "Title"
            self._say("enter: this title · escape: leave it as it is")

    def action_delete(self) -> None:
        """Take the chosen chat out of the list; ctrl+z brings it back."""
        chat = self._chosen
        if chat is None or self._renamed is not None:
            return
        try:
            self._store.delete(chat.id)
        except StoreError as error:
            self._say(str(error))
            return
        self.post_message(self.Deleted(chat.id))
        self._show()
        self._say(f"Deleted “{chat.title}”. ctrl+z brings it back.")

    def action_undo(self) -> None:
        """Bring back the chat deleted last."""
        if self._renamed is not None:
            return
        try:
            chat = self._store.undo_delete()
        except StoreError as error:
            self._say(str(error))
            return
        if chat is not None:
            self.post_message(self.Restored(chat.id))
        self._show()
        self._say(f"“{chat.title}” is back." if chat else "There is no deleted chat to bring back.")

    @property
    def _chosen(self) -> Chat | None:
        at = self._list.highlighted
        return self._chats[at] if at is not None and at < len(self._chats) else None

    def _finish_renaming(self, chat: Chat) -> None:
        try:
            self.post_message(self.Renamed(self._store.rename(chat.id, self._input.value)))
        except StoreError as error:
            self._say(str(error))
            return
        self._end_renaming()

    def _end_renaming(self) -> None:
        self._renamed = None
        self._input.value = ""
        self._input.placeholder = "Search titles and messages"
        self._show()

    def _show(self) -> None:
        try:
            self._chats = self._store.list_chats(self._input.value, limit=MOST_SHOWN)
        except StoreError as error:
            self._say(str(error))
            return
        self._list.clear_options()
        self._list.add_options([Option(_row(chat)) for chat in self._chats])
        self._list.highlighted = 0 if self._chats else None
        nothing = "No chat holds these words." if self._input.value.strip() else "No chats yet."
        self._say("enter: open · ctrl+r: rename · ctrl+d: delete · ctrl+z: undo" if self._chats else nothing)

    def _say(self, words: str) -> None:
        self._hint.update(sanitise(words))


def _row(chat: Chat) -> Content:
    when = datetime.fromtimestamp(chat.updated_s).strftime("%d %b %H:%M")
    return Content.assemble(
        (when, MUTED), "  ", sanitise_line(chat.title or "without a title"), (f"  {chat.message_count}", MUTED)
    )
