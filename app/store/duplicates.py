"""Finds chats that are stored already, or earlier states of them, so that importing again does not double them."""

from __future__ import annotations

import sqlite3
from collections import Counter
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
    known: dict[int, set[int]] = {}
    return [_stored(connection, chat, by_first, known) for chat in chats]


def find_earlier(connection: sqlite3.Connection, chats: Sequence[NewChat]) -> list[int | None]:
    """For each chat, the stored one that it goes on from, here or elsewhere: the only one with the same beginning.

    That is the same first message, written at the same moment. None also if two of `chats` begin alike.
    """
    stored: dict[tuple[str, float], list[int]] = {}
    for text, created_s, chat_id in connection.execute(
        """SELECT text, message.created_s, chat_id FROM message JOIN chat ON chat.id = chat_id
           WHERE parent_id IS NULL AND deleted = 0 AND message.created_s > 0 ORDER BY chat_id"""
    ):
        stored.setdefault((text, created_s), []).append(chat_id)
    beginnings = [(cleaned(chat.messages[0].text), chat.messages[0].created_s) if chat.messages else None
                  for chat in chats]  # fmt: skip
    counts = Counter(beginnings)
    matches = [
        stored.get(beginning, []) if beginning and counts[beginning] == 1 else [] for beginning in beginnings
    ]
    return [ids[0] if len(set(ids)) == 1 else None for ids in matches]


def _stored(
    connection: sqlite3.Connection, chat: NewChat, by_first: dict[str, list[int]], known: dict[int, set[int]]
) -> int | None:
    """known: the paths of stored chats, once they have been read."""
    if not chat.messages:
        return _stored_empty(connection, chat)
    paths = _paths((at, each.parent, each.role, cleaned(each.text)) for at, each in enumerate(chat.messages))
    for chat_id in dict.fromkeys(by_first.get(cleaned(chat.messages[0].text), ())):
        if chat_id not in known:
            known[chat_id] = _paths(
                connection.execute(
                    "SELECT id, parent_id, role, text FROM message WHERE chat_id = ? ORDER BY id", (chat_id,)
                )
            )
        if paths <= known[chat_id]:
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
