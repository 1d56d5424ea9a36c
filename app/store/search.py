"""Search in all messages. The index only makes it faster and never changes what it finds.

A message matches if it contains every search word, in upper or lower case, with or without accents, also inside
longer words. FTS5's trigram index of the folded texts proposes messages and `contains` decides; without FTS5,
`contains` looks at all messages.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from app.store.connection import DamagedFileError
from app.store.records import Chat, Hit
from app.store.rows import CHAT_COLUMNS, MESSAGE_COLUMNS, chat_from, message_from
from app.text.folding import folded, unfolded_position
from app.text.sanitise import cleaned

INDEXED_AT_ONCE = 100
"""Messages per transaction, which is how long another process may have to wait."""
MOST_TRIGRAMS = 32
"""More would hardly reduce the number of proposals."""
EXCERPT_CHARACTERS = 100
_LEAD_CHARACTERS = 30
_INDEX = "CREATE VIRTUAL TABLE message_index USING fts5(text, tokenize='trigram', detail='none')"
_CONTAINS = "message.state <> 'generating' AND contains(CAST(message.text AS BLOB), ?)"
_PENDING = "is_indexed = 0 AND state <> 'generating'"


def prepare_search(connection: sqlite3.Connection) -> None:
    """Add the search function, and the index if this SQLite supports it. Raises sqlite3.Error."""
    connection.create_function("contains", 2, contains, deterministic=True)
    if has_index(connection):
        return
    with suppress(sqlite3.OperationalError):
        connection.execute(_INDEX)
        connection.execute("UPDATE message SET is_indexed = 0")


def index_pending(connection: sqlite3.Connection) -> bool:
    """Index some messages that are not indexed yet. Returns whether there may be more."""
    if not has_index(connection):
        return False
    pending = connection.execute(
        f"SELECT id, text FROM message WHERE {_PENDING} LIMIT ?", (INDEXED_AT_ONCE,)
    ).fetchall()
    # FTS5 ignores text after a NUL.
    texts = [(id, folded(str(text)).replace("\0", " ")) for id, text in pending]
    with _damage_named():
        connection.executemany("INSERT OR REPLACE INTO message_index (rowid, text) VALUES (?, ?)", texts)
        # A savepoint makes FTS5 write now; otherwise it would fail in the commit, with no way to tell why.
        connection.execute("SAVEPOINT indexed")
        connection.execute("RELEASE indexed")
    connection.executemany("UPDATE message SET is_indexed = 1 WHERE id = ?", [(id,) for id, _ in pending])
    return len(pending) == INDEXED_AT_ONCE


def find_messages(connection: sqlite3.Connection, terms: Sequence[str], limit: int) -> list[Hit]:
    """Messages of chats that are not deleted, with every term, newest first."""
    from_where, values = _matching(connection, terms)
    columns = ", ".join(f"message.{column}" for column in MESSAGE_COLUMNS.split(", "))
    with _damage_named():
        rows = connection.execute(
            f"""SELECT {columns}, chat.title {from_where}
                AND chat.deleted = 0 ORDER BY message.id DESC LIMIT ?""",
            (*values, limit),
        ).fetchall()
    return [
        Hit(message.chat_id, str(title), message.id, message.role, excerpt(message.text, terms), message.created_s)
        for *row, title in rows
        for message in [message_from(row)]
    ]


def find_chats(connection: sqlite3.Connection, terms: Sequence[str], limit: int, offset: int) -> list[Chat]:
    """Chats that are not deleted, with every term in the title or in one message, most recently used first."""
    from_where, values = _matching(connection, terms)
    with _damage_named():
        rows = connection.execute(
            f"""SELECT {CHAT_COLUMNS} FROM chat
                WHERE deleted = 0
                AND (contains(CAST(title AS BLOB), ?) OR id IN (SELECT message.chat_id {from_where}))
                ORDER BY activity DESC, id DESC LIMIT ? OFFSET ?""",
            (" ".join(terms), *values, limit, offset),
        ).fetchall()
    return [chat_from(row) for row in rows]


def messages_containing(connection: sqlite3.Connection, chat_id: int, terms: Sequence[str]) -> list[int]:
    """The messages of a chat with every term, newest first."""
    ids = connection.execute(
        f"SELECT message.id FROM message WHERE chat_id = ? AND {_CONTAINS} ORDER BY message.id DESC",
        (chat_id, " ".join(terms)),
    )
    return [id for (id,) in ids]


def _matching(connection: sqlite3.Connection, terms: Sequence[str]) -> tuple[str, list[Any]]:
    """The FROM and WHERE of a SELECT of messages with every term, and their values."""
    query, index_query = " ".join(terms), trigrams(terms)
    chats = "JOIN chat ON chat.id = message.chat_id"
    if index_query is None or not _is_index_complete(connection):
        return f"FROM message {chats} WHERE {_CONTAINS}", [query]
    proposals = f"FROM message_index JOIN message ON message.id = message_index.rowid {chats}"
    return f"{proposals} WHERE message_index MATCH ? AND {_CONTAINS}", [index_query, query]


def has_index(connection: sqlite3.Connection) -> bool:
    """Whether there is an index that this SQLite can read. Raises sqlite3.DatabaseError if it is damaged."""
    try:
        with _damage_named():
            connection.execute("SELECT rowid FROM message_index LIMIT 0")
    except sqlite3.OperationalError:
        return False
    return True


@contextmanager
def _damage_named() -> Iterator[None]:
    """Reports damage as such. FTS5 trusts a damaged index: it asks for huge memory or writes a row twice."""
    try:
        yield
    except (MemoryError, sqlite3.IntegrityError) as error:
        reason = str(error) or "out of memory"
        raise DamagedFileError(f"the index of messages is damaged: {reason}") from error


def _is_index_complete(connection: sqlite3.Connection) -> bool:
    is_pending = connection.execute(f"SELECT EXISTS (SELECT 1 FROM message WHERE {_PENDING})").fetchone()[0]
    return not is_pending and has_index(connection)


def terms_of(text: str) -> list[str]:
    """The search words, folded for comparison."""
    return folded(cleaned(text)).split()


def contains(text: bytes | None, terms: str) -> bool:
    """Whether `text` contains all terms, which are separated by spaces."""
    # Bytes, because texts in a damaged file are not always UTF-8.
    lowered = folded((text or b"").decode("utf-8", "replace"))
    return all(term in lowered for term in terms.split())


def trigrams(terms: Sequence[str]) -> str | None:
    """The index query: three characters at a time, all of which must occur. None: the index cannot help."""
    groups = dict.fromkeys(
        letters
        for term in terms
        # SQLite ends a query at NUL.
        if "\0" not in term
        for letters in (term[at : at + 3] for at in range(len(term) - 2))
    )
    quoted = ['"' + group.replace('"', '""') + '"' for group in list(groups)[:MOST_TRIGRAMS]]
    return " AND ".join(quoted) or None


def excerpt(text: str, terms: Sequence[str]) -> str:
    """One line of text around the first match."""
    lowered = folded(text)
    positions = [position for term in terms if (position := lowered.find(term)) >= 0]
    start = max(0, unfolded_position(text, min(positions, default=0)) - _LEAD_CHARACTERS)
    line = " ".join(text[start : start + EXCERPT_CHARACTERS].split())
    return f"{'…' if start else ''}{line}{'…' if start + EXCERPT_CHARACTERS < len(text) else ''}"
