"""The open chat among the stored ones: open another, start a new one, walk its versions, rename, delete, export.

The same for every front end. If something cannot be done, the person is told why.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from app.core.chat_files import export_chat, import_chats, imported_line
from app.core.dialogue import Dialogue
from app.core.reply_view import ReplyView, Tell
from app.core.store_notices import StoreNotices, storing
from app.store.chat_store import ChatStore
from app.store.errors import StoreError
from app.store.records import Chat
from app.system.open_chat import OpenChatMark

TOLD_S = 2.0
"""How long the number of a version is shown: not much longer than until the next one."""


class CurrentChat:
    """Moves the conversation, the settings and the view from one chat to another."""

    def __init__(
        self,
        store: ChatStore,
        dialogue: Dialogue,
        view: ReplyView,
        tell: Tell,
        notices: StoreNotices,
        open_chats_path: Path | None = None,
    ) -> None:
        """open_chats_path: where running chats mark the stored chat that they have open; None: nowhere."""
        self._store = store
        self._conversation = dialogue.conversation
        self._dialogue = dialogue
        self._view = view
        self._tell = tell
        self._notices = notices
        self._open_mark = OpenChatMark(open_chats_path)
        self._told_elsewhere_id: int | None = None
        """The chat that the person has been told is open elsewhere."""
        self._deleted_id: int | None = None
        """The chat that was open when it was deleted from the list of chats."""

    async def open(self, chat_id: int, words: str = "") -> None:
        """Continue a stored chat, which stops a running reply in another one.

        words: what it was searched by; a version with them is shown.
        """
        is_shown = self._conversation.chat is not None and self._conversation.chat.id == chat_id
        if is_shown if self._dialogue.phase.is_replying else not self._dialogue.is_free():
            return
        with storing(self._tell):
            self._dialogue.leave()
            self._conversation.open(chat_id, words)
            self._follow_chat()
            await self._view.show_chat(self._conversation)

    async def begin(self) -> None:
        """Start a new chat, which stops a running reply."""
        self._dialogue.leave()
        self._conversation.clear()
        self._follow_chat()
        await self._view.show_chat(self._conversation)

    async def walk(self, step: int) -> None:
        """Show another version of this chat: other replies, or messages before they were edited."""
        if not self._dialogue.is_free():
            return
        with storing(self._tell):
            number, count = self._conversation.version
            if count == 1:
                self._tell("This chat has only one version. /retry regenerates the last reply.")
                return
            if not 1 <= number + step <= count:
                self._tell_version()
                return
            self._conversation.walk(step)
            self._dialogue.leave()
            await self._view.show_chat(self._conversation)
            self._tell_version()

    def _tell_version(self) -> None:
        """In the same words each time, so that one notice replaces the other."""
        number, count = self._conversation.version
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
            self._conversation.know_deletion()
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
            imported = import_chats(self._store, name)
            if chats := imported.added or imported.grown or imported.known:
                await self.open(chats[-1].id)
            self._tell(imported_line(imported))

    def mark_open(self) -> None:
        """Mark this chat as open, and tell the person once if another window has it open."""
        chat_id = self._conversation.chat.id if self._conversation.chat else None
        is_elsewhere = not self._open_mark.move(chat_id) or self._open_mark.has_visitor
        told_id, self._told_elsewhere_id = self._told_elsewhere_id, chat_id if is_elsewhere else None
        if is_elsewhere and told_id != chat_id:
            self._tell(
                "This chat is also open in another window. Messages sent there are not shown here: "
                "they become another version of the chat.",
                severity="warning",
                timeout=20,
            )

    def close(self) -> None:
        """The program ends."""
        self._open_mark.close()

    def save(self) -> None:
        """Store what the running reply has so far, and tell what has happened to the chat outside this window."""
        try:
            self._conversation.flush()
        except StoreError as error:
            self._notices.tell_once(f"The running reply is not saved yet. {error}")
        else:
            self._store.save_again()
            self._notices.check()
        self._notices.tell_news(self._conversation.take_news())
        self.mark_open()

    def _follow_chat(self) -> None:
        if warning := self._dialogue.settings.follow_chat():
            self._tell(warning, severity="warning")
        self._dialogue.gauges.forget_context()
        self.mark_open()
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
