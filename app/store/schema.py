"""The tables, and the migrations that bring a database of an earlier version up to date.

`user_version` counts the migrations that a database has had. Each is one transaction. There is no downgrade, but a
copy from before the first migration is kept beside the database.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """CREATE TABLE chat (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            title TEXT NOT NULL DEFAULT '',
            model TEXT NOT NULL DEFAULT '',
            drafter TEXT,
            params_json TEXT NOT NULL DEFAULT '{}',
            created_s REAL NOT NULL DEFAULT 0,
            updated_s REAL NOT NULL DEFAULT 0,
            activity INTEGER NOT NULL DEFAULT 0,
            deleted INTEGER NOT NULL DEFAULT 0,
            deleted_s REAL
        )""",
        "CREATE INDEX chat_activity ON chat (activity)",
        """CREATE TABLE message (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            chat_id INTEGER NOT NULL DEFAULT 0 REFERENCES chat (id) ON DELETE CASCADE,
            parent_id INTEGER,
            role TEXT NOT NULL DEFAULT 'user',
            text TEXT NOT NULL DEFAULT '',
            thinking TEXT NOT NULL DEFAULT '',
            state TEXT NOT NULL DEFAULT 'complete',
            created_s REAL NOT NULL DEFAULT 0,
            picked INTEGER NOT NULL DEFAULT 0,
            is_indexed INTEGER NOT NULL DEFAULT 0
        )""",
        "CREATE INDEX message_tree ON message (chat_id, parent_id, picked)",
        "CREATE INDEX message_unindexed ON message (is_indexed) WHERE is_indexed = 0",
        "CREATE INDEX message_generating ON message (state) WHERE state = 'generating'",
        """CREATE TABLE turn_stats (
            message_id INTEGER PRIMARY KEY REFERENCES message (id) ON DELETE CASCADE,
            finish_reason TEXT,
            prompt_tokens INTEGER NOT NULL DEFAULT 0,
            cached_tokens INTEGER NOT NULL DEFAULT 0,
            generated_tokens INTEGER NOT NULL DEFAULT 0,
            rounds INTEGER NOT NULL DEFAULT 0,
            target_passes INTEGER NOT NULL DEFAULT 0,
            drafted INTEGER NOT NULL DEFAULT 0,
            accepted INTEGER NOT NULL DEFAULT 0,
            drafted_by_position TEXT NOT NULL DEFAULT '[]',
            accepted_by_position TEXT NOT NULL DEFAULT '[]',
            draft_length INTEGER NOT NULL DEFAULT 0,
            ttft_s REAL,
            decode_s REAL NOT NULL DEFAULT 0,
            plain_tokens_per_s REAL,
            speedup REAL,
            peak_memory_bytes INTEGER,
            model TEXT NOT NULL DEFAULT '',
            drafter TEXT,
            app_version TEXT NOT NULL DEFAULT ''
        )""",
    ),
    # The search index now has folded texts.
    ("UPDATE message SET is_indexed = 0",),
    # Files in a message are no longer recognised by what they look like.
    ("ALTER TABLE message ADD COLUMN typed_characters INTEGER",),
    # Which process runs a reply, which database this is, and how long deleted chats have been kept.
    (
        """CREATE TABLE store (
            id INTEGER PRIMARY KEY,
            name TEXT NOT NULL DEFAULT '',
            age_s REAL NOT NULL DEFAULT 0,
            seen_s REAL NOT NULL DEFAULT 0
        )""",
        "INSERT INTO store (id, name) VALUES (1, lower(hex(randomblob(16))))",
        """CREATE TABLE process (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            token TEXT NOT NULL DEFAULT '' UNIQUE,
            machine TEXT NOT NULL DEFAULT '',
            pid INTEGER NOT NULL DEFAULT 0,
            started TEXT NOT NULL DEFAULT '',
            beat_s REAL NOT NULL DEFAULT 0,
            writes INTEGER NOT NULL DEFAULT 0
        )""",
        "ALTER TABLE message ADD COLUMN owner TEXT",
        "ALTER TABLE chat ADD COLUMN deleted_age_s REAL",
        "UPDATE chat SET deleted_age_s = 0 WHERE deleted > 0",
    ),
    # Replies that servers make, and how much of a prompt came from disk.
    (
        "ALTER TABLE turn_stats ADD COLUMN reported TEXT",
        "ALTER TABLE turn_stats ADD COLUMN disk_tokens INTEGER NOT NULL DEFAULT 0",
    ),
)
"""Statements by version. Every column that must not be NULL has a default, which rescued rows use if their own
value is lost. A published version is never edited; its fixture in the tests must keep loading."""

TABLES: dict[str, tuple[str, ...]] = {
    "chat": ("id", "title", "model", "drafter", "params_json", "created_s", "updated_s", "activity", "deleted",
             "deleted_s", "deleted_age_s"),
    "message": ("id", "chat_id", "parent_id", "role", "text", "thinking", "state", "created_s", "picked",
                "typed_characters", "owner"),
    "turn_stats": ("message_id", "finish_reason", "prompt_tokens", "cached_tokens", "generated_tokens", "rounds",
                   "target_passes", "drafted", "accepted", "drafted_by_position", "accepted_by_position",
                   "draft_length", "ttft_s", "decode_s", "plain_tokens_per_s", "speedup", "peak_memory_bytes",
                   "model", "drafter", "app_version", "reported", "disk_tokens"),
    "store": ("id", "name", "age_s", "seen_s"),
    "process": ("id", "token", "machine", "pid", "started", "beat_s", "writes"),
}  # fmt: skip
"""The columns that are rescued, because a person would miss them: key first, parents before children."""


def version_of(connection: sqlite3.Connection) -> int:
    """The number of migrations this database has had."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def migrate(
    connection: sqlite3.Connection, path: Path | None, migrations: Sequence[Sequence[str]] = MIGRATIONS
) -> None:
    """Bring the database up to date, after a copy if it is not new.

    Raises OSError or sqlite3.Error; the versions completed so far remain.
    """
    version = version_of(connection)
    if path is not None and 0 < version < len(migrations):
        write_copy(connection, path.with_name(f"{path.name}.bak-v{version}"))
    for number in range(version, len(migrations)):
        _apply(connection, migrations[number], number + 1)


def _apply(connection: sqlite3.Connection, statements: Sequence[str], version: int) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        for statement in statements:
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {version}")
        connection.execute("COMMIT")
    except sqlite3.Error:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def write_copy(connection: sqlite3.Connection, path: Path) -> None:
    """Write a whole database to a new file. Raises OSError or sqlite3.Error.

    Renamed only when complete: a copy cut short by a full disk must not pass for a whole one.
    """
    # SQLite writes the file itself, so `replace_file` cannot.
    unfinished = path.with_name(f"{path.name}.part")
    try:
        unfinished.unlink(missing_ok=True)
        # SQLite would make the file readable to everyone, but it accepts an empty one as it is.
        os.close(os.open(unfinished, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        connection.execute("VACUUM INTO ?", (os.fspath(unfinished),))
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
