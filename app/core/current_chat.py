"""The open chat among the stored ones: open another, start a new one, walk its versions, rename, delete, export.

The same for every front end. If something cannot be done, the person is told why.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from app.core.chat_files import export_chat, import_chats, imported_line
from app.core.dialogue import Dialogue
from app.core.reply_view import ReplyView, Tell
from app.core.store_notices import StoreNotices, storing
from app.store.chat_store import ChatStore
from app.store.errors import StoreError
from app.store.records import Chat

TOLD_S = 2.0
"""How long the number of a version is shown: not much longer than until the next one."""


class CurrentChat:
    """Moves the conversation, the settings and the view from one chat to another."""

    def __init__(
        self, store: ChatStore, dialogue: Dialogue, view: ReplyView, tell: Tell, notices: StoreNotices
    ) -> None:
        self._store = store
        self._conversation = dialogue.conversation
        self._dialogue = dialogue
        self._view = view
        self._tell = tell
        self._notices = notices
        self._deleted_id: int | None = None
        """The chat that was open when it was deleted from the list of chats."""

    async def open(self, chat_id: int, words: str = "") -> None:
        """Continue a stored chat. words: what it was searched by; a version with them is shown."""
        if not self._dialogue.is_free():
            return
        with storing(self._tell):
            self._conversation.open(chat_id, words)
            self._dialogue.leave()
            self._follow_chat()
            await self._view.show_chat(self._conversation)

    async def begin(self) -> None:
        """Start a new chat."""
        self._dialogue.leave()
        self._conversation.clear()
        self._follow_chat()
        await self._view.show_chat(self._conversation)

    async def walk(self, step: int) -> None:
        """Show another version of this chat: other replies, or messages before they were edited."""
        if not self._dialogue.is_free():
            return
        with storing(self._tell):
            if not self.has_versions:
                self._tell("This chat has only one version. /retry regenerates the last reply.")
                return
            before = self._conversation.version
            self._conversation.walk(step)
            number, count = self._conversation.version
            if (number, count) == before:
                self._tell(
                    f"Version {number} of {count}, the {'first' if step < 0 else 'last'} one.", timeout=TOLD_S
                )
                return
            self._dialogue.leave()
            await self._view.show_chat(self._conversation)
            self._tell(f"Version {number} of {count} of this chat.", timeout=TOLD_S)

    @property
    def has_versions(self) -> bool:
        """Whether there are other versions than the one shown. May raise StoreError."""
        return self._conversation.version != (1, 1)

    def rename(self, title: str) -> None:
        """Give this chat another title."""
        with self._stored("rename") as chat:
            if chat is not None:
                self._conversation.rename(title)
                self._show_title()
                self._tell(f"This chat is now called “{title}”.")

    async def delete(self) -> None:
        """Delete this chat, and start a new one."""
        if not self._dialogue.is_free():
            return
        with self._stored("delete") as chat:
            if chat is not None:
                self._store.delete(chat.id)
                await self.begin()
                self._tell(f"Deleted “{chat.title}”. /undo brings it back.")

    async def undo_delete(self) -> None:
        """Bring back the chat deleted last."""
        if not self._dialogue.is_free():
            return
        with storing(self._tell):
            chat = self._store.undo_delete()
            if chat is None:
                self._tell("There is no deleted chat to bring back.")
            else:
                await self.open(chat.id)
                self._tell(f"“{chat.title}” is back.")

    async def was_deleted(self, chat_id: int) -> None:
        """A chat was deleted from the list; it may be this one."""
        if self._conversation.chat and self._conversation.chat.id == chat_id:
            self._deleted_id = chat_id
            await self.begin()

    async def was_restored(self, chat_id: int) -> None:
        """A chat was brought back in the list; it may be the one that was open."""
        if self._conversation.chat is None and self._deleted_id == chat_id:
            await self.open(chat_id)

    def was_renamed(self, chat: Chat) -> None:
        """A chat was renamed in the list; it may be this one."""
        if self._conversation.chat and self._conversation.chat.id == chat.id:
            self._conversation.chat = chat
            self._show_title()

    def export(self, name: str | None) -> None:
        """Write this chat to a file; None names it after the title."""
        self.save()
        with self._stored("export") as chat:
            if chat is not None:
                self._tell(f"Exported to {export_chat(self._store, chat, name)}.")

    async def import_file(self, name: str) -> None:
        """Add the chats of an export that are not there yet, and open the last of them."""
        if not self._dialogue.is_free():
            return
        with storing(self._tell):
            added, known = import_chats(self._store, name)
            if added or known:
                await self.open((added or known)[-1].id)
            self._tell(imported_line(len(added), len(known)))

    def save(self) -> None:
        """Store what the running reply has so far."""
        try:
            self._conversation.flush()
        except StoreError as error:
            self._notices.tell_once(f"The running reply is not saved yet. {error}")
        else:
            self._notices.check()

    def _follow_chat(self) -> None:
        if warning := self._dialogue.settings.follow_chat():
            self._tell(warning, severity="warning")
        self._dialogue.gauges.forget_context()
        self._show_title()

    def _show_title(self) -> None:
        chat = self._conversation.chat
        self._view.show_title(chat.title if chat else "")

    @contextmanager
    def _stored(self, purpose: str) -> Iterator[Chat | None]:
        """This chat. None if it is empty and so not stored yet, which the person is told."""
        if self._conversation.chat is None:
            self._tell(f"Nothing to {purpose}: this chat is empty.")
        with storing(self._tell):
            yield self._conversation.chat
