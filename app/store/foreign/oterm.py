"""oterm's database of chats, and the Markdown that it exports."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing

from app.store.errors import ImportRefusedError
from app.store.foreign.conversation import Conversation, in_line
from app.store.foreign.messages import role_of
from app.store.foreign.values import ROLES, string

SQLITE_HEADER = b"SQLite format 3\0"
_JOURNAL_MODE_AT = slice(18, 20)
"""Position in the header of the bytes that say whether there is a write-ahead log; a copy in memory has none."""
_HEAD = re.compile(r"(?:\A|\n\n---\n)\*(me|ollama|user|assistant|system)\*\n")


def is_oterm_text(text: str) -> bool:
    """Whether a text is a chat that oterm exported."""
    return _HEAD.match(text) is not None


def read_oterm_text(text: str) -> Conversation:
    """The chat in an export."""
    _, *parts = _HEAD.split(text.removesuffix("\n---\n"))
    return Conversation(
        in_line((ROLES[role], body.strip("\n"), 0.0) for role, body in zip(parts[::2], parts[1::2]))
    )


def read_oterm_database(data: bytes, name: str) -> list[Conversation]:
    """The chats of a store.db. Raises ImportRefusedError for any other database."""
    file = bytearray(data)
    file[_JOURNAL_MODE_AT] = b"\1\1"
    with closing(sqlite3.connect(":memory:")) as connection:
        try:
            connection.deserialize(bytes(file))
            return list(_conversations(connection, name))
        except sqlite3.Error as error:
            raise ImportRefusedError(f"{name}: this database cannot be read: {error}.") from error


def _conversations(connection: sqlite3.Connection, name: str) -> Iterator[Conversation]:
    columns = {row[1] for row in connection.execute("PRAGMA table_info(message)")}
    speaker = next((column for column in ("role", "author") if column in columns), None)
    if speaker is None or "chat_id" not in columns:
        raise ImportRefusedError(f"{name}: this database is not the store.db of oterm. Nothing was imported.")
    for id, title, model, system in connection.execute("SELECT id, name, model, system FROM chat ORDER BY id"):
        rows = connection.execute(f"SELECT {speaker}, text FROM message WHERE chat_id = ? ORDER BY id", (id,))
        spoken = [
            ("system", string(system), 0.0),
            *((role_of(role, name), string(text), 0.0) for role, text in rows),
        ]
        yield Conversation(in_line(spoken), string(title), string(model))
