"""Copies what can be read from one database into another: from a damaged, newer or unwritable one.

Ids stay the same, so that ids held elsewhere still name the same chat and message.
"""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

from app.store.schema import TABLES

ROWS_AT_ONCE = 256
MOST_FAILURES = 200_000
"""Failed reads after which the rest of a table counts as lost: about three seconds."""
MOST_ROWS_ON_A_PAGE = 256
HIGHEST_ID = 1 << 40
"""No store gets this far. A higher id is damage, and would leave no ids for new messages."""


class Rescued(NamedTuple):
    """How much was copied."""

    chats: int
    messages: int


def copy_rows(source: sqlite3.Connection, target: sqlite3.Connection) -> Rescued:
    """Copy all readable chats, messages and figures into an empty database of the current version.

    Raises sqlite3.Error only for the target, which is then unchanged.
    """
    target.execute("BEGIN IMMEDIATE")
    try:
        # A message may be readable while its chat is lost: foreign keys hold only at the end.
        target.execute("PRAGMA defer_foreign_keys = ON")
        for table in TABLES:
            _copy_table(source, target, table)
        _adopt_orphans(target)
        counts = (target.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in ("chat", "message"))
        rescued = Rescued(*counts)
        target.execute("COMMIT")
    except sqlite3.Error:
        if target.in_transaction:
            target.execute("ROLLBACK")
        raise
    return rescued


def _copy_table(source: sqlite3.Connection, target: sqlite3.Connection, table: str) -> None:
    columns = _common_columns(source, table)
    if TABLES[table][0] not in columns:
        return
    names, placeholders = ", ".join(columns), ", ".join("?" * len(columns))
    # REPLACE uses the default where a value is NULL in a column that must not be.
    insert = f"INSERT OR REPLACE INTO {table} ({names}) VALUES ({placeholders})"
    target.executemany(insert, _readable_rows(source, f"SELECT {names} FROM {table}", TABLES[table][0]))


def _common_columns(source: sqlite3.Connection, table: str) -> list[str]:
    """The columns that the source has, in our order; a damaged database may have fewer, a newer one more."""
    try:
        present = {row[1] for row in source.execute(f"PRAGMA table_info({table})")}
    except (sqlite3.DatabaseError, UnicodeDecodeError):
        return []
    return [column for column in TABLES[table] if column in present]


def _readable_rows(source: sqlite3.Connection, select: str, key: str) -> Iterator[tuple[object, ...]]:
    """Every row on a readable page. A range of keys that fails is halved; wide ranges are tried first."""
    ranges = deque([_key_range(source, select, key)])
    failures = 0
    while ranges and failures < MOST_FAILURES:
        first, last = ranges.popleft()
        try:
            rows = source.execute(
                f"{select} WHERE {key} BETWEEN ? AND ? ORDER BY {key} LIMIT ?", (first, last, ROWS_AT_ONCE)
            ).fetchall()
        except (sqlite3.DatabaseError, MemoryError, UnicodeDecodeError):
            failures += 1
            middle = (first + last) // 2
            ranges += [half for half in ((first, middle), (middle + 1, last)) if first < last]
            continue
        yield from rows
        if len(rows) == ROWS_AT_ONCE:
            ranges.append((rows[-1][0] + 1, last))


def _key_range(source: sqlite3.Connection, select: str, key: str) -> tuple[int, int]:
    """From 1 to the highest possible key. Each source of that number may be damaged or too low."""
    table = select.rsplit(" ", 1)[1]
    last = _number(source, f"SELECT max({key}) FROM {table}")
    highest = max(last, _number(source, "SELECT max(seq) FROM sqlite_sequence"))
    by_size = MOST_ROWS_ON_A_PAGE * _number(source, "PRAGMA page_count")
    return 1, min(highest or by_size, HIGHEST_ID)


def _number(source: sqlite3.Connection, question: str) -> int:
    with suppress(sqlite3.DatabaseError, UnicodeDecodeError):
        answer = source.execute(question).fetchone()[0]
        return answer if isinstance(answer, int) else 0
    return 0


def _adopt_orphans(target: sqlite3.Connection) -> None:
    """Give messages of lost chats a new chat with the same id, and delete figures without a message."""
    target.execute(
        "UPDATE message SET chat_id = 0 WHERE typeof(chat_id) <> 'integer' OR chat_id NOT BETWEEN 0 AND ?",
        (HIGHEST_ID,),
    )
    target.execute(
        """INSERT INTO chat (id, title, model, params_json, created_s, updated_s, activity)
           SELECT chat_id, 'Rescued chat', '', '{}', min(created_s), max(created_s), chat_id FROM message
           WHERE chat_id NOT IN (SELECT id FROM chat) GROUP BY chat_id"""
    )
    target.execute("DELETE FROM turn_stats WHERE message_id NOT IN (SELECT id FROM message)")
