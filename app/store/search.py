"""Search in all that was said. What is found does not depend on the index: it only makes it quicker.

A message is found if it holds every word searched for, in any case, also in the middle of a longer word.
FTS5's trigram index proposes messages and `contains` decides; without FTS5 `contains` looks at them all.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from app.store.connection import DamagedFileError
from app.store.records import Chat, Hit
from app.store.rows import CHAT_COLUMNS, MESSAGE_COLUMNS, chat_from, message_from
from app.text.sanitise import cleaned

INDEXED_AT_ONCE = 100
"""Messages per transaction: another process waits no longer than it takes to index these."""
MOST_TRIGRAMS = 32
"""More would not narrow the choice any further."""
EXCERPT_CHARACTERS = 100
_LEAD_CHARACTERS = 30
_INDEX = "CREATE VIRTUAL TABLE message_index USING fts5(text, tokenize='trigram', detail='none')"
_HOLDS = "message.state <> 'generating' AND contains(CAST(message.text AS BLOB), ?)"
_PENDING = "is_indexed = 0 AND state <> 'generating'"
_LAST_OF_OLD_CASES = 0x0520
"""Up to here (Latin, Greek, Cyrillic) SQLite and Python agree on capitals, except for these:"""
_UNEQUAL = "\0\u0307"
"""SQLite ends the question at a NUL; Python makes a capital I with a dot two letters, the second this dot."""


def prepare_search(connection: sqlite3.Connection) -> None:
    """Teach the connection to search, and make the index if this SQLite can. Raises sqlite3.Error."""
    connection.create_function("contains", 2, contains, deterministic=True)
    if has_index(connection):
        return
    with suppress(sqlite3.OperationalError):
        connection.execute(_INDEX)
        connection.execute("UPDATE message SET is_indexed = 0")


def index_pending(connection: sqlite3.Connection) -> bool:
    """Index some of the messages that are not yet; whether there may be more."""
    if not has_index(connection):
        return False
    pending = connection.execute(
        f"SELECT id, text FROM message WHERE {_PENDING} LIMIT ?", (INDEXED_AT_ONCE,)
    ).fetchall()
    # FTS5 would not look at what follows a NUL.
    texts = [(id, str(text).replace("\0", " ")) for id, text in pending]
    with _damage_named():
        connection.executemany("INSERT OR REPLACE INTO message_index (rowid, text) VALUES (?, ?)", texts)
        # At a savepoint FTS5 writes what it has; without one it would fail in the commit, under no name.
        connection.execute("SAVEPOINT indexed")
        connection.execute("RELEASE indexed")
    connection.executemany("UPDATE message SET is_indexed = 1 WHERE id = ?", [(id,) for id, _ in pending])
    return len(pending) == INDEXED_AT_ONCE


def find_messages(connection: sqlite3.Connection, terms: Sequence[str], limit: int) -> list[Hit]:
    """Messages of chats that are not deleted and hold every term, the newest first."""
    found, values = _found(connection, terms)
    columns = ", ".join(f"message.{column}" for column in MESSAGE_COLUMNS.split(", "))
    with _damage_named():
        rows = connection.execute(
            f"""SELECT {columns}, chat.title {found}
                AND chat.deleted = 0 ORDER BY message.id DESC LIMIT ?""",
            (*values, limit),
        ).fetchall()
    return [
        Hit(message.chat_id, str(title), message.id, message.role, excerpt(message.text, terms), message.created_s)
        for *row, title in rows
        for message in [message_from(row)]
    ]


def find_chats(connection: sqlite3.Connection, terms: Sequence[str], limit: int, offset: int) -> list[Chat]:
    """Chats that are not deleted and hold every term in the title or in one message, the one last used first."""
    found, values = _found(connection, terms)
    with _damage_named():
        rows = connection.execute(
            f"""SELECT {CHAT_COLUMNS} FROM chat
                WHERE deleted = 0 AND (contains(CAST(title AS BLOB), ?) OR id IN (SELECT message.chat_id {found}))
                ORDER BY activity DESC, id DESC LIMIT ? OFFSET ?""",
            (" ".join(terms), *values, limit, offset),
        ).fetchall()
    return [chat_from(row) for row in rows]


def messages_holding(connection: sqlite3.Connection, chat_id: int, terms: Sequence[str]) -> list[int]:
    """The messages of a chat that hold every term, the newest first."""
    found = connection.execute(
        f"SELECT message.id FROM message WHERE chat_id = ? AND {_HOLDS} ORDER BY message.id DESC",
        (chat_id, " ".join(terms)),
    )
    return [id for (id,) in found]


def _found(connection: sqlite3.Connection, terms: Sequence[str]) -> tuple[str, list[Any]]:
    """The rest of a SELECT from the messages that hold every term, and its values."""
    words, proposed = " ".join(terms), trigrams(terms)
    chats = "JOIN chat ON chat.id = message.chat_id"
    if proposed is None or not _is_index_complete(connection):
        return f"FROM message {chats} WHERE {_HOLDS}", [words]
    proposals = f"FROM message_index JOIN message ON message.id = message_index.rowid {chats}"
    return f"{proposals} WHERE message_index MATCH ? AND {_HOLDS}", [proposed, words]


def has_index(connection: sqlite3.Connection) -> bool:
    """Whether there is an index that this SQLite can use. Raises sqlite3.DatabaseError for a damaged one."""
    try:
        with _damage_named():
            connection.execute("SELECT rowid FROM message_index LIMIT 0")
    except sqlite3.OperationalError:
        return False
    return True


@contextmanager
def _damage_named() -> Iterator[None]:
    """FTS5 believes what a damaged index says of its sizes and rows: it asks for memory or writes a row twice."""
    try:
        yield
    except (MemoryError, sqlite3.IntegrityError) as error:
        reason = str(error) or "it asks for too much memory"
        raise DamagedFileError(f"the index of messages is damaged: {reason}") from error


def _is_index_complete(connection: sqlite3.Connection) -> bool:
    is_pending = connection.execute(f"SELECT EXISTS (SELECT 1 FROM message WHERE {_PENDING})").fetchone()[0]
    return not is_pending and has_index(connection)


def terms_of(text: str) -> list[str]:
    """The words searched for, in small letters."""
    return small(cleaned(text)).split()


def small(text: str) -> str:
    """The text as it is compared."""
    # The one letter of which Python makes two, by its place in the word.
    return text.lower().replace("ς", "σ")


def contains(text: bytes | None, terms: str) -> bool:
    """Whether every one of the terms, separated by spaces, is in `text`."""
    # Bytes, because what a damaged file calls a text is not always UTF-8.
    lowered = small((text or b"").decode("utf-8", "replace"))
    return all(term in lowered for term in terms.split())


def trigrams(terms: Sequence[str]) -> str | None:
    """What the index is asked: three letters at a time, each of which must occur. None: it cannot help."""
    found = dict.fromkeys(
        letters
        for term in terms
        if not any(letter in term for letter in _UNEQUAL)
        for letters in (term[at : at + 3] for at in range(len(term) - 2))
        if all(letter.lower() == letter.upper() or ord(letter) < _LAST_OF_OLD_CASES for letter in letters)
    )
    quoted = ['"' + each.replace('"', '""') + '"' for each in list(found)[:MOST_TRIGRAMS]]
    return " AND ".join(quoted) or None


def excerpt(text: str, terms: Sequence[str]) -> str:
    """One line of the text around the first word found."""
    lowered = small(text)
    places = [place for term in terms if (place := lowered.find(term)) >= 0]
    start = max(0, min(places, default=0) - _LEAD_CHARACTERS)
    line = " ".join(text[start : start + EXCERPT_CHARACTERS].split())
    return f"{'…' if start else ''}{line}{'…' if start + EXCERPT_CHARACTERS < len(text) else ''}"
