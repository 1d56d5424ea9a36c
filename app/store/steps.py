"""The steps that the store's transactions are made of. Each is given a connection that is in one.

A chat or message that is not there is a NotStoredError.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

import msgspec

from app.store import rows
from app.store.connection import DamagedFileError
from app.store.errors import NotStoredError
from app.store.records import Chat, NewChat, Role, State, StoredMessage, TurnStats
from app.store.rows import CHAT_COLUMNS, MESSAGE_COLUMNS, STATS_COLUMNS
from app.store.search import has_index, messages_holding
from app.store.title import automatic_title
from app.store.tree import Link, Tree
from app.text.sanitise import cleaned

# Chats


def chat_of(connection: sqlite3.Connection, chat_id: int) -> Chat:
    """A chat, even a deleted one."""
    row = connection.execute(f"SELECT {CHAT_COLUMNS} FROM chat WHERE id = ?", (chat_id,)).fetchone()
    if row is None:
        raise NotStoredError(f"There is no chat {chat_id}.")
    return rows.chat_from(row)


def list_chats(connection: sqlite3.Connection, limit: int, offset: int) -> list[Chat]:
    """Chats that are not deleted, the one last used first."""
    found = connection.execute(
        f"SELECT {CHAT_COLUMNS} FROM chat WHERE deleted = 0 ORDER BY activity DESC, id DESC LIMIT ? OFFSET ?",
        (limit, offset),
    )
    return [rows.chat_from(row) for row in found]


def change_chat(connection: sqlite3.Connection, chat_id: int, changes: str, values: Sequence[Any]) -> Chat:
    """Set columns of a chat."""
    if not connection.execute(f"UPDATE chat SET {changes} WHERE id = ?", (*values, chat_id)).rowcount:
        raise NotStoredError(f"There is no chat {chat_id}.")
    return chat_of(connection, chat_id)


def use_chat(connection: sqlite3.Connection, chat_id: int, now_s: float) -> None:
    """Make a chat the one last used; a deleted one is no longer."""
    newest = "(SELECT 1 + max(activity) FROM chat)"
    changes = f"updated_s = ?, activity = {newest}, deleted = 0, deleted_s = NULL"
    change_chat(connection, chat_id, changes, (now_s,))


def give_title(connection: sqlite3.Connection, chat_id: int, text: str) -> None:
    """Take a title from a message, if the chat has none."""
    connection.execute("UPDATE chat SET title = ? WHERE id = ? AND title = ''", (automatic_title(text), chat_id))


def note_pair(connection: sqlite3.Connection, chat_id: int, stats: TurnStats) -> None:
    """Keep with a chat which pair has answered, if that is known."""
    if stats.model:
        pair = cleaned(stats.model), stats.drafter and cleaned(stats.drafter)
        change_chat(connection, chat_id, "model = ?, drafter = ?", pair)


def delete_chat(connection: sqlite3.Connection, chat_id: int, now_s: float) -> None:
    """Mark a chat as deleted, after those deleted before."""
    latest = "(SELECT 1 + max(deleted) FROM chat)"
    deleted = connection.execute(
        f"UPDATE chat SET deleted = {latest}, deleted_s = ? WHERE id = ? AND deleted = 0", (now_s, chat_id)
    )
    if not deleted.rowcount:
        raise NotStoredError(f"There is no chat {chat_id}.")


def undo_delete(connection: sqlite3.Connection) -> Chat | None:
    """Bring back the chat deleted last."""
    last = connection.execute("SELECT id FROM chat WHERE deleted > 0 ORDER BY deleted DESC LIMIT 1").fetchone()
    return change_chat(connection, last[0], "deleted = 0, deleted_s = NULL", ()) if last else None


def forget_deleted(connection: sqlite3.Connection, before_s: float) -> None:
    """Remove what was deleted before a time, for good."""
    forgotten = connection.execute(
        "SELECT id FROM chat WHERE deleted > 0 AND deleted_s < ?", (before_s,)
    ).fetchall()
    for chat_id in forgotten:
        if has_index(connection):
            gone = "SELECT id FROM message WHERE chat_id = ?"
            connection.execute(f"DELETE FROM message_index WHERE rowid IN ({gone})", chat_id)
        connection.execute("DELETE FROM chat WHERE id = ?", chat_id)


def import_chat(connection: sqlite3.Connection, chat: NewChat) -> Chat:
    """Add a chat with all its messages."""
    drafter = chat.drafter and cleaned(chat.drafter)
    about = (cleaned(chat.title), cleaned(chat.model), drafter, rows.params_to_json(chat.params))
    newest = "(SELECT 1 + coalesce(max(activity), 0) FROM chat)"
    chat_id = _inserted(
        connection.execute(
            f"""INSERT INTO chat (title, model, drafter, params_json, created_s, updated_s, activity)
                VALUES (?, ?, ?, ?, ?, ?, {newest})""",
            (*about, chat.created_s, chat.updated_s),
        )
    )
    ids: list[int] = []
    for message in chat.messages:
        parent_id = None if message.parent is None else ids[message.parent]
        texts = (cleaned(message.text), cleaned(message.thinking))
        values = (chat_id, parent_id, message.role, *texts, message.state, message.created_s)
        ids.append(_insert_message(connection, values))
        if message.stats is not None:
            rows.insert_stats(connection, ids[-1], message.stats)
    tree = tree_of(connection, chat_id)
    for id, message in zip(ids, chat.messages):
        if message.is_shown:
            _pick(connection, tree, id)
    return chat_of(connection, chat_id)


# Messages


def message_of(connection: sqlite3.Connection, message_id: int) -> StoredMessage:
    """A message with its figures, placed among its siblings."""
    return _placed(connection, _tree_around(connection, message_id), message_id)


def chat_id_of(connection: sqlite3.Connection, message_id: int) -> int:
    """The chat that a message is in."""
    row = connection.execute("SELECT chat_id FROM message WHERE id = ?", (message_id,)).fetchone()
    if row is None:
        raise NotStoredError(f"There is no message {message_id}.")
    return rows.whole(row[0])


def tree_of(connection: sqlite3.Connection, chat_id: int) -> Tree:
    """How the messages of a chat hang together."""
    links = connection.execute(
        "SELECT id, parent_id, picked FROM message WHERE chat_id = ?", (chat_id,)
    ).fetchall()
    if not links:
        chat_of(connection, chat_id)
    return Tree(Link(id, parent_id, rows.whole(picked)) for id, parent_id, picked in links)


def _tree_around(connection: sqlite3.Connection, message_id: int) -> Tree:
    """The tree that a message is in."""
    tree = tree_of(connection, chat_id_of(connection, message_id))
    if message_id not in tree:
        raise DamagedFileError(f"message {message_id} is missing from an index")
    return tree


def path(connection: sqlite3.Connection, chat_id: int) -> list[StoredMessage]:
    """The messages of a chat that are shown."""
    tree = tree_of(connection, chat_id)
    return [_placed(connection, tree, id) for id in tree.path()]


def messages(connection: sqlite3.Connection, chat_id: int) -> list[StoredMessage]:
    """All messages of a chat."""
    tree = tree_of(connection, chat_id)
    return [_placed(connection, tree, id) for id in tree]


def keep_message(
    connection: sqlite3.Connection, chat_id: int, parent_id: int | None, text: str, now_s: float
) -> StoredMessage:
    """Add what the person wrote to a chat, which may get its title from it, and is the one last used."""
    use_chat(connection, chat_id, now_s)
    give_title(connection, chat_id, text)
    return append(connection, chat_id, parent_id, "user", text, now_s)


def append(
    connection: sqlite3.Connection, chat_id: int, parent_id: int | None, role: Role, text: str, now_s: float
) -> StoredMessage:
    """Add a message to a chat; it is the sibling that is shown."""
    if parent_id is not None and chat_id_of(connection, parent_id) != chat_id:
        raise NotStoredError(f"There is no message {parent_id} in chat {chat_id}.")
    state: State = "complete" if role == "user" else "generating"
    id = _insert_message(connection, (chat_id, parent_id, role, text, "", state, now_s))
    return message_of(connection, id)


def grow(connection: sqlite3.Connection, message_id: int, pieces: tuple[str, str], state: State) -> None:
    """Append text and thinking to a reply that has not ended."""
    # Another process that has just opened the store may have taken a running reply for interrupted.
    grown = connection.execute(
        """UPDATE message SET text = text || ?, thinking = thinking || ?, state = ?, is_indexed = 0
           WHERE id = ? AND role = 'assistant' AND state IN ('generating', 'interrupted')""",
        (*pieces, state, message_id),
    )
    if not grown.rowcount:
        raise NotStoredError(f"There is no running reply {message_id}.")


def resume(connection: sqlite3.Connection, message_id: int) -> StoredMessage:
    """Let a reply that has ended grow again."""
    resumed = connection.execute(
        "UPDATE message SET state = 'generating' WHERE id = ? AND role = 'assistant'", (message_id,)
    )
    if not resumed.rowcount:
        raise NotStoredError(f"There is no reply {message_id}.")
    return message_of(connection, message_id)


def interrupt_running(connection: sqlite3.Connection) -> None:
    """Whoever generated these has ended without ending them."""
    connection.execute("UPDATE message SET state = 'interrupted' WHERE state = 'generating'")


def version(connection: sqlite3.Connection, chat_id: int) -> tuple[int, int]:
    """Which of the ends of a chat is shown, from 1, and how many it has."""
    tree = tree_of(connection, chat_id)
    leaves = tree.leaves()
    return (leaves.index(tree.path()[-1]) + 1, len(leaves)) if leaves else (1, 1)


def walk(connection: sqlite3.Connection, chat_id: int, step: int) -> None:
    """Show the end of a chat that is `step` places further; the first and the last are walls."""
    tree = tree_of(connection, chat_id)
    if leaves := tree.leaves():
        at = leaves.index(tree.path()[-1]) + step
        _show(connection, tree, leaves[max(0, min(at, len(leaves) - 1))])


def reveal(connection: sqlite3.Connection, chat_id: int, terms: Sequence[str]) -> None:
    """Show the newest message that holds every term, unless one that does is shown."""
    tree = tree_of(connection, chat_id)
    holding = [id for id in messages_holding(connection, chat_id, terms) if id in tree]
    if holding and not set(holding) & set(tree.path()):
        _show(connection, tree, holding[0])


def _show(connection: sqlite3.Connection, tree: Tree, message_id: int) -> None:
    for id in tree.lineage(message_id):
        _pick(connection, tree, id)


def _placed(connection: sqlite3.Connection, tree: Tree, message_id: int) -> StoredMessage:
    row = connection.execute(f"SELECT {MESSAGE_COLUMNS} FROM message WHERE id = ?", (message_id,)).fetchone()
    if row is None:
        raise DamagedFileError(f"message {message_id} is only in an index")
    figures = connection.execute(
        f"SELECT {STATS_COLUMNS} FROM turn_stats WHERE message_id = ?", (message_id,)
    ).fetchone()
    siblings = tree.siblings(message_id)
    return msgspec.structs.replace(
        rows.message_from(row, rows.stats_from(figures) if figures else None),
        parent_id=tree.parent(message_id),
        sibling=siblings.index(message_id) + 1,
        siblings=len(siblings),
        is_shown=tree.shown(tree.parent(message_id)) == message_id,
    )


def _pick(connection: sqlite3.Connection, tree: Tree, message_id: int) -> None:
    if tree.shown(tree.parent(message_id)) != message_id:
        connection.execute("UPDATE message SET picked = ? WHERE id = ?", (tree.next_pick(message_id), message_id))


def _insert_message(connection: sqlite3.Connection, values: Sequence[Any]) -> int:
    """Insert chat_id, parent_id, role, text, thinking, state and created_s."""
    picked = "(SELECT 1 + coalesce(max(picked), 0) FROM message WHERE chat_id = ?1 AND parent_id IS ?2)"
    return _inserted(
        connection.execute(
            f"""INSERT INTO message (chat_id, parent_id, role, text, thinking, state, created_s, picked)
                VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, {picked})""",
            values,
        )
    )


def _inserted(cursor: sqlite3.Cursor) -> int:
    assert cursor.lastrowid is not None
    return cursor.lastrowid
