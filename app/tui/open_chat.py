"""The chat that is shown, out of those that are kept: another one opened or begun, this one renamed, walked,
exported or deleted. What cannot be done is told."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from app.core.chat_files import export_chat, import_chats
from app.core.conversation import Conversation
from app.core.dialogue import Dialogue, Tell, storing
from app.core.reply_settings import ReplySettings
from app.store.chat_store import ChatStore
from app.store.errors import StoreError
from app.store.records import Chat
from app.tui.chat_view import ChatView
from app.tui.keys import key_in


class OpenChat:
    """Brings conversation, settings and screen from one chat to another."""

    def __init__(
        self,
        store: ChatStore,
        conversation: Conversation,
        dialogue: Dialogue,
        replies: ReplySettings,
        view: ChatView,
        tell: Tell,
    ) -> None:
        self._store = store
        self._conversation = conversation
        self._dialogue = dialogue
        self._replies = replies
        self._view = view
        self._tell = tell
        self._told: str | None = None
        """What was last said about the store."""
        self._deleted: int | None = None
        """The chat that was open when it was deleted from the list."""

    async def open(self, chat_id: int, words: str = "") -> None:
        """Go on with a chat that is kept. words: what it was found by."""
        if not self._dialogue.is_free():
            return
        with storing(self._tell):
            self._conversation.open(chat_id, words)
            self._dialogue.leave()
            if trouble := self._replies.follow_chat():
                self._tell(trouble, severity="warning")
            await self.show()

    async def begin(self) -> None:
        """A new conversation; what stands in the prompt stays."""
        self._dialogue.leave()
        self._conversation.clear()
        self._replies.follow_chat()
        self._view.has_news = True
        self.show_title()
        await self._view.transcript.clear()

    async def walk(self, step: int) -> None:
        """Show another version of this chat: other replies, or messages as they were before they were changed."""
        if not self._dialogue.is_free():
            return
        with storing(self._tell):
            if not self.has_versions:
                retry = key_in(self._view.app, "retry")
                self._tell(f"There is only this version of the chat. {retry} asks for another reply.")
                return
            self._conversation.walk(step)
            self._dialogue.leave()
            await self.show()

    @property
    def has_versions(self) -> bool:
        """Whether there is more of this chat than is shown. May raise StoreError."""
        return self._conversation.version != (1, 1)

    def rename(self, title: str) -> None:
        """Give this chat another title."""
        with self._stored() as chat:
            if chat is not None:
                self._conversation.rename(title)
                self.show_title()

    async def delete(self) -> None:
        """Take this chat out of sight, and begin a new one."""
        if not self._dialogue.is_free():
            return
        with self._stored() as chat:
            if chat is not None:
                self._store.delete(chat.id)
                await self.begin()
                self._tell(f"Deleted “{chat.title}”. /undo brings it back.")

    async def undo_delete(self) -> None:
        """Bring back the chat that was deleted last."""
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
        """A chat is out of sight; this one, perhaps."""
        if self._conversation.chat and self._conversation.chat.id == chat_id:
            self._deleted = chat_id
            await self.begin()

    async def came_back(self, chat_id: int) -> None:
        """A chat is in sight again; the one that was open, perhaps."""
        if self._conversation.chat is None and self._deleted == chat_id:
            await self.open(chat_id)

    def was_renamed(self, chat: Chat) -> None:
        """A chat has another title; this one, perhaps."""
        if self._conversation.chat and self._conversation.chat.id == chat.id:
            self._conversation.chat = chat
            self.show_title()

    def export(self, name: str | None) -> None:
        """Write this chat to a file; None names it after the title."""
        self.keep()
        with self._stored() as chat:
            if chat is not None:
                self._tell(f"Exported to {export_chat(self._store, chat, name)}.")

    async def import_(self, name: str) -> None:
        """Add the chats of a file, and show the last of them."""
        if not self._dialogue.is_free():
            return
        with storing(self._tell):
            if added := import_chats(self._store, name):
                await self.open(added[-1].id)
                self._tell(f"Imported {len(added)} chat{'s' * (len(added) > 1)}.")

    def keep(self) -> None:
        """Bring the disk up to the running reply."""
        try:
            self._conversation.flush()
        except StoreError as error:
            self._tell_once(f"The running reply is not on the disk yet. {error}")
        else:
            self.tell_of_store()

    def tell_of_store(self) -> None:
        """What is to be known of the store, once."""
        self._tell_once(self._store.notice)

    def _tell_once(self, words: str | None) -> None:
        if words != self._told:
            self._told = words
            if words:
                self._tell(words, severity="warning", timeout=20)

    async def show(self) -> None:
        """Bring the transcript to what the conversation is now."""
        await self._view.transcript.show(self._conversation.exchanges)
        self._dialogue.show_version()
        self.show_title()

    def show_title(self) -> None:
        """Of this chat, in the top line; nothing before its first message."""
        self._view.top_line.title = self._conversation.chat.title if self._conversation.chat else ""

    @contextmanager
    def _stored(self) -> Iterator[Chat | None]:
        """This chat; None, and said: nobody has written in it."""
        if self._conversation.chat is None:
            self._tell("This chat is empty: it is kept from its first message on.")
        with storing(self._tell):
            yield self._conversation.chat
