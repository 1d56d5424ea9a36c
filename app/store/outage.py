"""What a database in memory has that its file lacks, because the file cannot be written for a while.

Triggers note each change. New chats and messages get ids far above those in the file, because other processes may
go on writing it. So everything can be added to the file later, under the same ids, whatever was written meanwhile.
"""

from __future__ import annotations

import random
import sqlite3

CHAT_GAPS = range(100, 10_000)
MESSAGE_GAPS = range(10_000, 10_000_000)
"""How far the ids are above those in the file, at random: two processes may be cut off at the same time."""

_GROUPS = {
    "chat": {
        "title": ("title",),
        "pair": ("model", "drafter"),
        "params": ("params_json",),
        "use": ("updated_s", "activity"),
        "deletion": ("deleted", "deleted_s", "deleted_age_s"),
    },
    "message": {"reply": ("text", "thinking", "state", "owner"), "pick": ("picked",)},
    "turn_stats": {},
}
"""Columns that change together, by table and by a name for the change. A new row is a change called `new`."""
_KEYS = {"chat": "id", "message": "id", "turn_stats": "message_id"}


def note_changes(memory: sqlite3.Connection) -> None:
    """Note every change from now on in the table `unsaved`."""
    memory.execute("CREATE TEMP TABLE unsaved (what TEXT, id INTEGER, PRIMARY KEY (what, id)) WITHOUT ROWID")
    for table, groups in _GROUPS.items():
        _note(memory, table, "new", "INSERT")
        for name, columns in groups.items():
            _note(memory, table, name, f"UPDATE OF {', '.join(columns)}")
    for table, gaps in (("chat", CHAT_GAPS), ("message", MESSAGE_GAPS)):
        memory.execute(f"INSERT INTO sqlite_sequence (name, seq) SELECT '{table}', 0 WHERE '{table}' NOT IN "
                       "(SELECT name FROM sqlite_sequence)")  # fmt: skip
        memory.execute("UPDATE sqlite_sequence SET seq = seq + ? WHERE name = ?", (random.choice(gaps), table))


def _note(memory: sqlite3.Connection, table: str, name: str, event: str) -> None:
    memory.execute(
        f"""CREATE TEMP TRIGGER unsaved_{table}_{name} AFTER {event} ON main.{table}
            BEGIN INSERT OR IGNORE INTO unsaved VALUES ('{table} {name}', NEW.{_KEYS[table]}); END"""
    )


def unsaved_chats(memory: sqlite3.Connection) -> list[int]:
    """The ids of the chats that have changed and are not deleted, oldest first."""
    ids = memory.execute(
        """SELECT DISTINCT chat.id FROM unsaved LEFT JOIN message ON message.id = unsaved.id
           AND what NOT LIKE 'chat %' JOIN chat ON chat.id = coalesce(message.chat_id, unsaved.id)
           WHERE deleted = 0 AND (what LIKE 'chat %' OR message.id IS NOT NULL) ORDER BY chat.id"""
    )
    return [id for (id,) in ids]


def write_unsaved(memory: sqlite3.Connection, file: sqlite3.Connection) -> None:
    """Make all noted changes in the file, in a transaction of the caller's. Raises sqlite3.Error."""
    for chat_id in _changed(memory, "chat new", "chat"):
        _insert(memory, file, "chat", chat_id)
    for name, columns in _GROUPS["chat"].items():
        for chat_id in _changed(memory, f"chat {name}", "chat", order="activity" if name == "use" else "deleted"):
            _update_chat(memory, file, name, columns, chat_id)
    kept: dict[int, int | None] = {}
    for id in _changed(memory, "message new", "message"):
        kept[id] = _insert(memory, file, "message", id)
    for id in _changed(memory, "message reply", "message"):
        if id not in kept:
            kept[id] = _write_reply(memory, file, id)
    for id in _changed(memory, "message pick", "message", order="picked"):
        newest = """(SELECT 1 + max(picked) FROM message AS other
                     WHERE other.chat_id = message.chat_id AND other.parent_id IS message.parent_id)"""
        file.execute(f"UPDATE message SET picked = {newest} WHERE id = ?", (kept.get(id, id),))
    for id in _changed(memory, "turn_stats new", "turn_stats"):
        if (kept_id := kept.get(id, id)) is not None:
            _insert(memory, file, "turn_stats", id, {"message_id": kept_id})


def _changed(memory: sqlite3.Connection, what: str, table: str, order: str = "") -> list[int]:
    key = _KEYS[table]
    ids = memory.execute(
        f"""SELECT {table}.{key} FROM unsaved JOIN {table} ON {table}.{key} = unsaved.id
            WHERE what = ? ORDER BY {f"{table}.{order}, " if order else ""}{table}.{key}""",
        (what,),
    )
    return [id for (id,) in ids]


def _row(connection: sqlite3.Connection, table: str, id: int) -> dict[str, object]:
    cursor = connection.execute(f"SELECT * FROM {table} WHERE {_KEYS[table]} = ?", (id,))
    row = cursor.fetchone()
    return {} if row is None else {column[0]: value for column, value in zip(cursor.description, row)}


def _insert(
    memory: sqlite3.Connection,
    file: sqlite3.Connection,
    table: str,
    id: int,
    other: dict[str, object] | None = None,
) -> int:
    row = {**_row(memory, table, id), **(other or {})}
    if "is_indexed" in row:
        row["is_indexed"] = 0
    replacing = "OR REPLACE " if table == "turn_stats" else ""
    marks = ", ".join("?" * len(row))
    inserted = file.execute(
        f"INSERT {replacing}INTO {table} ({', '.join(row)}) VALUES ({marks})", tuple(row.values())
    ).lastrowid
    assert inserted is not None
    return inserted


def _update_chat(
    memory: sqlite3.Connection, file: sqlite3.Connection, name: str, columns: tuple[str, ...], id: int
) -> None:
    row = _row(memory, "chat", id)
    values = {column: row[column] for column in columns}
    if name == "use":
        values["activity"] = file.execute("SELECT 1 + max(activity) FROM chat").fetchone()[0]
    if name == "deletion" and row["deleted"]:
        values["deleted"] = file.execute("SELECT 1 + max(deleted) FROM chat").fetchone()[0]
    sets = ", ".join(f"{column} = ?" for column in values)
    file.execute(f"UPDATE chat SET {sets} WHERE id = ?", (*values.values(), id))


def _write_reply(memory: sqlite3.Connection, file: sqlite3.Connection, id: int) -> int | None:
    """Write a reply that has grown. Returns the id that it has now.

    If another process has changed it meanwhile, it becomes a version of its own. One that still runs is left to
    its writer here, who is told at the next word; None is returned then.
    """
    ours, theirs = _row(memory, "message", id), _row(file, "message", id)
    if not theirs or not all(str(ours[column]).startswith(str(theirs[column])) for column in ("text", "thinking")):
        if ours["state"] == "generating":
            return None
        return _insert(memory, file, "message", id, {"id": None})
    file.execute(
        "UPDATE message SET text = ?, thinking = ?, state = ?, owner = ?, is_indexed = 0 WHERE id = ?",
        (ours["text"], ours["thinking"], ours["state"], ours["owner"], id),
    )
    return id
