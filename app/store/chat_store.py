"""Every conversation there is: kept, grown, walked, searched. The one thing of the store that the app holds.

Messages form a tree in each chat. Their order is that of their ids; the clock is only shown to people.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from app.store import rows, steps
from app.store.database import FLUSH_TIMEOUT_S, Database
from app.store.errors import StoreBusyError, StoreError
from app.store.records import Chat, FinalState, Hit, NewChat, StoredMessage, TurnStats
from app.store.search import find_chats, find_messages, index_pending, terms_of
from app.text.sanitise import cleaned

DELETED_KEPT_S = 30 * 24 * 3600.0
"""A deleted chat can be had back for this long."""


class ChatStore:
    """The chats in one file, for one thread. Every method but `open` and `close` may raise StoreError.

    A chat or message that is not there is a NotStoredError. `notice` and `is_saving` say how the store is; both
    can change with any call.
    """

    def __init__(self, database: Database, now: Callable[[], float]) -> None:
        self._database = database
        self._now = now

    @classmethod
    def open(cls, path: Path, now: Callable[[], float] = time.time) -> ChatStore:
        """The store at `path`, made if it is missing. Always returns one: what is wrong is in `notice`.

        Replies that were still being generated are marked as interrupted, with what they had.
        """
        store = cls(Database(path), now)
        with suppress(StoreBusyError):
            store._database.write(store._tidy, is_durable=False)
        return store

    @classmethod
    def in_memory(cls, now: Callable[[], float] = time.time) -> ChatStore:
        """A store that ends with the process, for a conversation that nobody keeps."""
        return cls(Database(None), now)

    @property
    def notice(self) -> str | None:
        """What a person has to know about the store, in a sentence; None while all is well."""
        return self._database.notice

    @property
    def is_saving(self) -> bool:
        """Whether anything outlives this process."""
        return self._database.is_saving

    def close(self) -> None:
        """Nothing can be asked of the store after this."""
        self._database.close()

    def create_chat(
        self, title: str = "", model: str = "", drafter: str | None = None, params: Mapping[str, Any] | None = None
    ) -> Chat:
        """A chat without messages. Without a title it takes one from its first message."""
        now_s = self._now()
        chat = NewChat(title, model, drafter, dict(params or {}), now_s, now_s, ())
        return self.import_chats([chat])[0]

    def chat(self, chat_id: int) -> Chat:
        """One chat, even a deleted one."""
        return self._database.read(lambda connection: steps.chat_of(connection, chat_id))

    def list_chats(self, query: str | None = None, limit: int = 100, offset: int = 0) -> list[Chat]:
        """Chats, the one last used first; those whose title or messages hold every word of `query`."""
        terms = terms_of(query or "")
        if not terms:
            return self._database.read(lambda connection: steps.list_chats(connection, limit, offset))
        self._index_all()
        return self._database.read(lambda connection: find_chats(connection, terms, limit, offset))

    def rename(self, chat_id: int, title: str) -> Chat:
        """Give a chat a title, on one line. An empty one is refused."""
        title = cleaned(" ".join(title.split()))
        if not title:
            raise StoreError("A title needs at least one letter.")
        return self._change_chat(chat_id, "title = ?", title)

    def set_params(self, chat_id: int, params: Mapping[str, Any]) -> Chat:
        """Replace the settings of a chat; they must be what JSON can hold."""
        return self._change_chat(chat_id, "params_json = ?", rows.params_to_json(params))

    def delete(self, chat_id: int) -> None:
        """Take a chat out of sight. For `DELETED_KEPT_S` it can be brought back."""
        self._database.write(lambda connection: steps.delete_chat(connection, chat_id, self._now()))

    def undo_delete(self) -> Chat | None:
        """Bring back the chat that was deleted last; None if there is none."""
        return self._database.write(steps.undo_delete)

    def ask(self, chat_id: int, parent_id: int | None, text: str) -> tuple[Chat, StoredMessage, StoredMessage]:
        """Keep what the person wrote, and begin an empty reply to it: both or neither; the chat, and the two.

        When this returns, they are on the disk, and shown in place of their siblings. A chat that was deleted
        comes back by it.
        """
        text = cleaned(text)

        def ask(connection: sqlite3.Connection) -> tuple[Chat, StoredMessage, StoredMessage]:
            message = steps.keep_message(connection, chat_id, parent_id, text, self._now())
            reply = steps.append(connection, chat_id, message.id, "assistant", "", self._now())
            return steps.chat_of(connection, chat_id), message, reply

        return self._database.write(ask)

    def begin_reply(self, parent_id: int) -> StoredMessage:
        """Another empty reply that is being generated, shown in place of its siblings."""

        def begin(connection: sqlite3.Connection) -> StoredMessage:
            chat_id = steps.chat_id_of(connection, parent_id)
            return steps.append(connection, chat_id, parent_id, "assistant", "", self._now())

        return self._database.write(begin, is_durable=False)

    def continue_reply(self, message_id: int) -> StoredMessage:
        """Let a reply that has ended grow again."""
        return self._database.write(lambda connection: steps.resume(connection, message_id), is_durable=False)

    def grow_reply(self, message_id: int, text: str, thinking: str = "") -> None:
        """Append to a running reply. Every two seconds is often enough.

        Hardly waits for another program that holds the database: the next call can bring the same words.
        """
        pieces = (cleaned(text), cleaned(thinking))
        self._database.write(
            lambda connection: steps.grow(connection, message_id, pieces, "generating"),
            is_durable=False,
            patience_s=FLUSH_TIMEOUT_S,
        )

    def finish_reply(
        self,
        message_id: int,
        state: FinalState,
        stats: TurnStats | None = None,
        text: str = "",
        thinking: str = "",
    ) -> StoredMessage:
        """End a running reply, with the last of its text; when this returns, it is on the disk.

        Figures replace those of an earlier part of the reply; the pair that they name is the chat's from now on.
        """
        pieces = (cleaned(text), cleaned(thinking))

        def finish(connection: sqlite3.Connection) -> StoredMessage:
            steps.grow(connection, message_id, pieces, state)
            chat_id = steps.chat_id_of(connection, message_id)
            if stats is not None:
                rows.insert_stats(connection, message_id, stats)
                steps.note_pair(connection, chat_id, stats)
            steps.use_chat(connection, chat_id, self._now())
            return steps.message_of(connection, message_id)

        message = self._database.write(finish)
        # The reply is kept; a search indexes what is not yet.
        with suppress(StoreBusyError):
            self._index_all()
        return message

    def path(self, chat_id: int) -> list[StoredMessage]:
        """The messages that are shown, from the first to the last."""
        return self._database.read(lambda connection: steps.path(connection, chat_id))

    def messages(self, chat_id: int) -> list[StoredMessage]:
        """Every message of a chat, shown or not, in the order they were made."""
        return self._database.read(lambda connection: steps.messages(connection, chat_id))

    def version(self, chat_id: int) -> tuple[int, int]:
        """Which version of a chat is shown, from 1, and how many there are.

        A version is what stands above one of the chat's ends. Another reply makes another one, and so does a
        message that is sent changed; every message is in at least one of them.
        """
        return self._database.read(lambda connection: steps.version(connection, chat_id))

    def walk(self, chat_id: int, step: int) -> None:
        """Show the version of a chat `step` places further, at the most the last one."""
        self._database.write(lambda connection: steps.walk(connection, chat_id, step), is_durable=False)

    def reveal(self, chat_id: int, text: str) -> None:
        """Show a version of a chat in which a message holds every word of `text`, if there is one."""
        terms = terms_of(text)
        if terms:
            self._database.write(lambda connection: steps.reveal(connection, chat_id, terms), is_durable=False)

    def search(self, text: str, limit: int = 50) -> list[Hit]:
        """Messages that hold every word of `text`, in any case, the newest first."""
        terms = terms_of(text)
        if not terms:
            return []
        self._index_all()
        return self._database.read(lambda connection: find_messages(connection, terms, limit))

    def import_chats(self, chats: Sequence[NewChat]) -> list[Chat]:
        """Add chats with all their messages, or none of them. The last one counts as the one last used."""
        return self._database.write(lambda connection: [steps.import_chat(connection, chat) for chat in chats])

    def _tidy(self, connection: sqlite3.Connection) -> None:
        steps.interrupt_running(connection)
        steps.forget_deleted(connection, before_s=self._now() - DELETED_KEPT_S)

    def _change_chat(self, chat_id: int, changes: str, *values: str | None) -> Chat:
        return self._database.write(lambda connection: steps.change_chat(connection, chat_id, changes, values))

    def _index_all(self) -> None:
        while self._database.write(index_pending, is_durable=False):
            pass
