"""All stored chats. The only part of the store that the app holds on to.

Messages form a tree in each chat and are ordered by id; times are only shown to people.
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
from app.store.duplicates import find_earlier, find_stored
from app.store.errors import RunningElsewhereError, StoreBusyError, StoreError
from app.store.membership import forget_ended
from app.store.records import Chat, FinalState, Hit, Imported, NewChat, StoredMessage, TurnStats
from app.store.search import find_chats, find_messages, index_pending, terms_of
from app.text.sanitise import cleaned
from mlx_engine.files.chat_cache_folder import ChatCacheFolder

DELETED_KEPT_S = 30 * 24 * 3600.0
"""How long a deleted chat can be restored, at least."""


RUNNING_ELSEWHERE = "This reply is still running in another window. Wait for its end, or stop it there."


class ChatStore:
    """The chats in one file, for one thread. All methods but `open` and `close` may raise StoreError.

    A chat or message that does not exist raises NotStoredError. `notice` and `is_saving` describe the state of the
    store; any call can change both.
    """

    def __init__(self, database: Database, now: Callable[[], float], cache: ChatCacheFolder | None = None) -> None:
        self._database = database
        self._now = now
        self._cache = cache
        self.kept_path: Path | None = None
        """Where the person has kept the unsaved chats."""

    @classmethod
    def open(
        cls,
        path: Path,
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
        cache: ChatCacheFolder | None = None,
    ) -> ChatStore:
        """The store at `path`, created if it is missing. Never raises: problems are described in `notice`.

        Replies whose process has ended are marked as interrupted and keep their text. clock: for waiting. cache:
        what the engine has on disk of these chats, which is deleted with them.
        """
        store = cls(Database(path, now, clock), now, cache)
        with suppress(StoreBusyError):
            store._database.write(store._tidy, is_durable=False)
        with suppress(StoreError):
            store._tidy_cache()
        return store

    @classmethod
    def in_memory(cls, now: Callable[[], float] = time.time) -> ChatStore:
        """An empty store in memory, which is lost when the process ends."""
        return cls(Database(None, now), now)

    @property
    def notice(self) -> str | None:
        """A problem that the person should know about, as a sentence; None if there is none."""
        return self._database.notice

    @property
    def is_saving(self) -> bool:
        """Whether changes are written to a file, and not only kept in memory."""
        return self._database.is_saving

    @property
    def is_cut_off(self) -> bool:
        """Whether the file cannot be written, so that changes are only kept in memory for now."""
        return self._database.is_cut_off

    @property
    def epoch(self) -> int:
        """A number that changes when the file was replaced: ids from before must not be used any more."""
        return self._database.epoch

    def save_again(self, *, is_urgent: bool = False) -> bool:
        """Return to the file if it can be written again. Returns whether changes are saved.

        is_urgent: try now, even if that was just tried.
        """
        if is_urgent:
            return self._database.save_again()
        self._database.save_again_if_due()
        return self.is_saving

    def unsaved_chats(self) -> list[Chat]:
        """The chats with changes that are only in memory, oldest first."""
        return [self.chat(chat_id) for chat_id in self._database.unsaved_chats]

    def beat(self) -> None:
        """Show other processes that this one still runs its reply."""
        with suppress(StoreError):
            self._database.write(lambda connection: None, is_durable=False, patience_s=FLUSH_TIMEOUT_S)

    def is_deleted(self, chat_id: int) -> bool:
        """Whether a chat is deleted. False if it does not exist."""
        return self._database.read(lambda connection: steps.is_deleted(connection, chat_id))

    def close(self) -> None:
        """Close the store; it cannot be used afterwards."""
        self._database.close()

    def create_chat(
        self, title: str = "", model: str = "", drafter: str | None = None, params: Mapping[str, Any] | None = None
    ) -> Chat:
        """Add an empty chat. Without a title, it takes one from its first message."""
        now_s = self._now()
        chat = NewChat(title, model, drafter, dict(params or {}), now_s, now_s, ())
        return self.import_chats([chat])[0]

    def chat(self, chat_id: int) -> Chat:
        """One chat, which may be deleted."""
        return self._database.read(lambda connection: steps.chat_of(connection, chat_id))

    def list_chats(self, query: str | None = None, limit: int = 100, offset: int = 0) -> list[Chat]:
        """Chats, most recently used first; with a `query`, those whose title or messages contain all its words."""
        terms = terms_of(query or "")
        if not terms:
            return self._database.read(lambda connection: steps.list_chats(connection, limit, offset))
        self._index_all()
        return self._database.read(lambda connection: find_chats(connection, terms, limit, offset))

    def rename(self, chat_id: int, title: str) -> Chat:
        """Set a chat's title, joined to one line. Raises StoreError for an empty one."""
        title = cleaned(" ".join(title.split()))
        if not title:
            raise StoreError("A title needs at least one letter.")
        return self._change_chat(chat_id, "title = ?", title)

    def set_params(self, chat_id: int, params: Mapping[str, Any]) -> Chat:
        """Replace the settings of a chat. Raises StoreError if JSON cannot represent them."""
        return self._change_chat(chat_id, "params_json = ?", rows.params_to_json(params))

    def delete(self, chat_id: int) -> None:
        """Delete a chat. It can be restored for `DELETED_KEPT_S`, but for what the engine has of it on disk."""
        self._database.write(lambda connection: steps.delete_chat(connection, chat_id, self._now()))
        if self._cache:
            self._cache.delete(chat_id)

    def undo_delete(self) -> Chat | None:
        """Restore the chat that was deleted last; None if there is none."""
        return self._database.write(steps.undo_delete)

    def ask(
        self, chat_id: int, parent_id: int | None, text: str, typed_characters: int | None = None
    ) -> tuple[Chat, StoredMessage, StoredMessage]:
        """Add the person's message and an empty reply, or neither. Returns the chat, the message and the reply.

        When this returns, both are on disk and shown instead of their siblings. A deleted chat is restored.
        typed_characters: how much of the text the person typed; None: all of it. Raises RunningElsewhereError if
        `parent_id` is a reply that another process is writing.
        """
        text = cleaned(text)
        typed = len(text) if typed_characters is None else typed_characters

        def add_both(connection: sqlite3.Connection) -> tuple[Chat, StoredMessage, StoredMessage]:
            self._refuse_running(connection, parent_id)
            message = steps.add_user_message(connection, chat_id, parent_id, text, self._now(), typed)
            reply = steps.append(connection, chat_id, message.id, "assistant", "", self._now(), None, self._owner)
            return steps.chat_of(connection, chat_id), message, reply

        return self._database.write(add_both)

    def begin_reply(self, parent_id: int) -> StoredMessage:
        """Add another empty reply to a message, shown instead of its siblings."""

        def add_reply(connection: sqlite3.Connection) -> StoredMessage:
            chat_id = steps.chat_id_of(connection, parent_id)
            return steps.append(connection, chat_id, parent_id, "assistant", "", self._now(), None, self._owner)

        return self._database.write(add_reply, is_durable=False)

    def continue_reply(self, message_id: int) -> StoredMessage:
        """Let a reply that was stopped grow again. Returns it as it is now.

        Raises RunningElsewhereError if another process is writing it, and StoreError if it is complete.
        """

        def resume(connection: sqlite3.Connection) -> StoredMessage:
            self._refuse_running(connection, message_id)
            return steps.resume(connection, message_id, self._owner)

        return self._database.write(resume, is_durable=False)

    def grow_reply(self, message_id: int, text: str, thinking: str = "") -> None:
        """Append to a running reply of this process. Every two seconds is often enough.

        Raises TakenOverError if another process has gone on with it. Hardly waits for another program that has
        locked the database: the next call can bring the same text.
        """
        pieces = (cleaned(text), cleaned(thinking))
        self._database.write(
            lambda connection: steps.grow(connection, message_id, pieces, "generating", self._owner),
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
        """Finish a running reply of this process, with the rest of its text. When this returns, it is on disk.

        A deleted chat stays deleted. The figures replace those of an earlier part of the reply; the chat takes
        over the pair that they name. Raises TakenOverError if another process has gone on with the reply.
        """
        pieces = (cleaned(text), cleaned(thinking))

        def finish(connection: sqlite3.Connection) -> StoredMessage:
            steps.grow(connection, message_id, pieces, state, self._owner)
            chat_id = steps.chat_id_of(connection, message_id)
            if stats is not None:
                rows.insert_stats(connection, message_id, stats)
                steps.note_pair(connection, chat_id, stats)
            steps.mark_used(connection, chat_id, self._now())
            return steps.message_of(connection, message_id)

        message = self._database.write(finish)
        # The reply is safe; if indexing fails now, the next search does it.
        with suppress(StoreBusyError):
            self._index_all()
        return message

    def path(self, chat_id: int) -> list[StoredMessage]:
        """The messages that are shown, first to last."""
        return self._database.read(lambda connection: steps.path(connection, chat_id))

    def messages(self, chat_id: int) -> list[StoredMessage]:
        """All messages of a chat, shown or not, in the order they were created."""
        return self._database.read(lambda connection: steps.messages(connection, chat_id))

    def version(self, chat_id: int) -> tuple[int, int]:
        """The number of the version that is shown, from 1, and how many there are.

        A version is the path to one leaf of the tree. Another reply adds a version, and so does an edited message;
        every message belongs to at least one.
        """
        return self._database.read(lambda connection: steps.version(connection, chat_id))

    def walk(self, chat_id: int, step: int) -> None:
        """Show the version `step` places further, but not beyond the first or last one."""
        self._database.write(lambda connection: steps.walk(connection, chat_id, step), is_durable=False)

    def reveal(self, chat_id: int, text: str) -> None:
        """Show a version in which a message contains all words of `text`, if there is one."""
        terms = terms_of(text)
        if terms:
            self._database.write(lambda connection: steps.reveal(connection, chat_id, terms), is_durable=False)

    def search(self, text: str, limit: int = 50) -> list[Hit]:
        """Messages that contain all words of `text`, in upper or lower case, newest first."""
        terms = terms_of(text)
        if not terms:
            return []
        self._index_all()
        return self._database.read(lambda connection: find_messages(connection, terms, limit))

    def import_chats(self, chats: Sequence[NewChat]) -> list[Chat]:
        """Add chats with all their messages, or nothing. The last one becomes the most recently used."""
        return self._database.write(lambda connection: [steps.import_chat(connection, chat) for chat in chats])

    def import_new(self, chats: Sequence[NewChat]) -> Imported:
        """Add those chats that are not stored yet, and what is missing in those that have grown elsewhere."""

        def add_new(connection: sqlite3.Connection) -> Imported:
            stored = find_stored(connection, chats)
            missing = [chat for chat, id in zip(chats, stored) if id is None]
            earlier = list(zip(missing, find_earlier(connection, missing)))
            grown = [steps.add_missing(connection, id, chat) for chat, id in earlier if id is not None]
            added = [steps.import_chat(connection, chat) for chat, id in earlier if id is None]
            known = [steps.chat_of(connection, id) for id in dict.fromkeys(stored) if id is not None]
            return Imported(added, known, grown)

        return self._database.write(add_new)

    @property
    def _owner(self) -> str:
        return self._database.token

    def _refuse_running(self, connection: sqlite3.Connection, message_id: int | None) -> None:
        if message_id is not None and steps.is_running_elsewhere(connection, message_id, self._owner, self._now()):
            raise RunningElsewhereError(RUNNING_ELSEWHERE)

    def _tidy(self, connection: sqlite3.Connection) -> None:
        steps.interrupt_ended(connection, self._owner, self._now())
        forget_ended(connection, self._now())
        steps.grow_older(connection, self._now())
        steps.forget_deleted(connection, DELETED_KEPT_S)

    def _tidy_cache(self) -> None:
        """Delete what the engine has on disk of chats that are not here, as after the file was replaced."""
        cached = self._cache.chats() if self._cache and self.is_saving else []
        stored = {chat.id for chat in self.list_chats(limit=-1)} if cached else set()
        for chat in cached:
            if self._cache and chat.chat_id not in stored:
                self._cache.delete(chat.chat_id)

    def _change_chat(self, chat_id: int, changes: str, *values: str | None) -> Chat:
        return self._database.write(lambda connection: steps.change_chat(connection, chat_id, changes, values))

    def _index_all(self) -> None:
        while self._database.write(index_pending, is_durable=False):
            pass
