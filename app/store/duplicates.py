"""Finds chats that are stored already, so that importing a file twice does not double them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence

from app.store.records import NewChat
from app.text.sanitise import cleaned

Spoken = tuple[int, int | None, str, str]
"""Id, parent's id, role and text of a message; the id may be its position."""


def find_stored(connection: sqlite3.Connection, chats: Sequence[NewChat]) -> list[int | None]:
    """For each chat, a stored one that is not deleted and has all its messages; None if there is none."""
    by_first: dict[str, list[int]] = {}
    for text, chat_id in connection.execute(
        """SELECT text, chat_id FROM message JOIN chat ON chat.id = chat_id
           WHERE parent_id IS NULL AND deleted = 0 ORDER BY chat_id"""
    ):
        by_first.setdefault(text, []).append(chat_id)
    return [_stored(connection, chat, by_first) for chat in chats]


def _stored(connection: sqlite3.Connection, chat: NewChat, by_first: dict[str, list[int]]) -> int | None:
    if not chat.messages:
        return _stored_empty(connection, chat)
    paths = _paths((at, each.parent, each.role, cleaned(each.text)) for at, each in enumerate(chat.messages))
    for chat_id in dict.fromkeys(by_first.get(cleaned(chat.messages[0].text), ())):
        rows = connection.execute(
            "SELECT id, parent_id, role, text FROM message WHERE chat_id = ? ORDER BY id", (chat_id,)
        )
        if paths <= _paths(rows):
            return chat_id
    return None


def _stored_empty(connection: sqlite3.Connection, chat: NewChat) -> int | None:
    row = connection.execute(
        """SELECT id FROM chat WHERE deleted = 0 AND title = ? AND created_s = ?
           AND NOT EXISTS (SELECT 1 FROM message WHERE chat_id = chat.id)""",
        (cleaned(chat.title), chat.created_s),
    ).fetchone()
    return None if row is None else int(row[0])


def _paths(messages: Iterable[Spoken]) -> set[int]:
    """A hash of each message with all messages before it. Parents come first."""
    hashes: dict[int | None, int] = {}
    for id, parent, role, text in messages:
        hashes[id] = hash((hashes.get(parent), role, text))
    return set(hashes.values())
