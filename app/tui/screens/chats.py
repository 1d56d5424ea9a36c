"""The list of chats: search, open, rename, delete and bring back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.message import Message
from textual.screen import ModalScreen
from textual.timer import Timer
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from app.store.chat_store import ChatStore
from app.store.errors import StoreError
from app.store.records import Chat
from app.text.figures import MUTED, day
from app.text.sanitise import sanitise, sanitise_line

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
        # Ahead of the search line's own editing keys, and so of letters that still wait for it: what they do waits
        # there as well.
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
        self._listed = ""
        """The words for which the list is right."""
        self._soon: Timer | None = None
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
            if self._soon is not None:
                self._soon.stop()
            self._soon = self.set_timer(SEARCH_S, self._catch_up)

    def _catch_up(self) -> None:
        """Search now for what is typed: nothing may be done to a chat that the words no longer find."""
        if self._renamed is None and self._input.value != self._listed:
            self._show()

    @on(Input.Submitted)
    def _enter(self) -> None:
        if self._renamed is not None:
            self._finish_renaming(self._renamed)
        elif (chat := self._choose()) is not None:
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
        self._catch_up()
        moves[direction]()

    def action_close(self) -> None:
        """Leave renaming, or the list."""
        if self._renamed is not None:
            self._end_renaming()
        else:
            self.dismiss(None)

    def action_rename(self) -> None:
        """Type a new title in place of the search."""
        self._input.call_later(self._rename)

    def action_delete(self) -> None:
        """Take the chosen chat out of the list; ctrl+z brings it back."""
        self._input.call_later(self._delete)

    def action_undo(self) -> None:
        """Bring back the chat deleted last."""
        self._input.call_later(self._undo)

    def _rename(self) -> None:
        if self._renamed is None and (chat := self._choose()) is not None:
            self._renamed = chat
            self._input.value = sanitise_line(chat.title)
            self._input.action_end()
            self._input.placeholder = "Title"
            self._say("enter: this title · escape: leave it as it is")

    def _delete(self) -> None:
        if self._renamed is not None or (chat := self._choose()) is None:
            return
        try:
            self._store.delete(chat.id)
        except StoreError as error:
            self._say(str(error))
            return
        self.post_message(self.Deleted(chat.id))
        self._show()
        self._say(f"Deleted “{chat.title}”. ctrl+z brings it back.")

    def _undo(self) -> None:
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

    def _choose(self) -> Chat | None:
        self._catch_up()
        at = self._list.highlighted if self._input.value == self._listed else None
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
        words = self._input.value
        try:
            self._chats = self._store.list_chats(words, limit=MOST_SHOWN)
        except StoreError as error:
            self._say(str(error))
            return
        self._listed = words
        self._list.clear_options()
        self._list.add_options([Option(_row(chat)) for chat in self._chats])
        self._list.highlighted = 0 if self._chats else None
        nothing = "No chat holds these words." if words.strip() else "No chats yet."
        self._say("enter: open · ctrl+r: rename · ctrl+d: delete · ctrl+z: undo" if self._chats else nothing)

    def _say(self, words: str) -> None:
        self._hint.update(sanitise(words))


def _row(chat: Chat) -> Content:
    title = sanitise_line(chat.title or "without a title")
    count = f"{chat.message_count} message{'s' * (chat.message_count != 1)}"
    return Content.assemble((day(chat.updated_s), MUTED), "  ", title, (f"  {count}", MUTED))
