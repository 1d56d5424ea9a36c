"""The steps of the store's transactions. Each runs on a connection inside a transaction.

A chat or message that does not exist raises NotStoredError.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

import msgspec

from app.store import rows
from app.store.connection import DamagedFileError
from app.store.errors import NotStoredError, StoreError, TakenOverError
from app.store.membership import is_running
from app.store.records import Chat, NewChat, NewMessage, Role, State, StoredMessage, TurnStats
from app.store.rows import CHAT_COLUMNS, MESSAGE_COLUMNS, STATS_COLUMNS
from app.store.search import has_index, messages_containing
from app.store.title import automatic_title
from app.store.tree import Link, Tree
from app.text.sanitise import cleaned

MOST_AT_ONCE_S = 2 * 24 * 3600.0
"""How much older the store gets at most between two openings."""
_RESTORED = "deleted = 0, deleted_s = NULL, deleted_age_s = NULL"

# Chats


def chat_of(connection: sqlite3.Connection, chat_id: int) -> Chat:
    """A chat, which may be deleted."""
    row = connection.execute(f"SELECT {CHAT_COLUMNS} FROM chat WHERE id = ?", (chat_id,)).fetchone()
    if row is None:
        raise NotStoredError(f"There is no chat {chat_id}.")
    return rows.chat_from(row)


def list_chats(connection: sqlite3.Connection, limit: int, offset: int) -> list[Chat]:
    """Chats that are not deleted, most recently used first."""
    chat_rows = connection.execute(
        f"SELECT {CHAT_COLUMNS} FROM chat WHERE deleted = 0 ORDER BY activity DESC, id DESC LIMIT ? OFFSET ?",
        (limit, offset),
    )
    return [rows.chat_from(row) for row in chat_rows]


def change_chat(connection: sqlite3.Connection, chat_id: int, changes: str, values: Sequence[Any]) -> Chat:
    """Set columns of a chat. changes: the SET clause, whose parameters are `values`."""
    if not connection.execute(f"UPDATE chat SET {changes} WHERE id = ?", (*values, chat_id)).rowcount:
        raise NotStoredError(f"There is no chat {chat_id}.")
    return chat_of(connection, chat_id)


def mark_used(connection: sqlite3.Connection, chat_id: int, now_s: float) -> None:
    """Make a chat the most recently used one."""
    change_chat(connection, chat_id, "updated_s = ?, activity = (SELECT 1 + max(activity) FROM chat)", (now_s,))


def is_deleted(connection: sqlite3.Connection, chat_id: int) -> bool:
    """Whether a chat is there and marked as deleted."""
    row = connection.execute("SELECT deleted FROM chat WHERE id = ?", (chat_id,)).fetchone()
    return row is not None and row[0] != 0


def give_title(connection: sqlite3.Connection, chat_id: int, text: str) -> None:
    """Make a title from a message, if the chat has none."""
    connection.execute("UPDATE chat SET title = ? WHERE id = ? AND title = ''", (automatic_title(text), chat_id))


def note_pair(connection: sqlite3.Connection, chat_id: int, stats: TurnStats) -> None:
    """Store which pair has replied in a chat, if known."""
    if stats.model:
        pair = cleaned(stats.model), stats.drafter and cleaned(stats.drafter)
        change_chat(connection, chat_id, "model = ?, drafter = ?", pair)


def delete_chat(connection: sqlite3.Connection, chat_id: int, now_s: float) -> None:
    """Mark a chat as deleted, numbered after those deleted before."""
    latest, age = "(SELECT 1 + max(deleted) FROM chat)", "(SELECT age_s FROM store)"
    deleted = connection.execute(
        f"UPDATE chat SET deleted = {latest}, deleted_s = ?, deleted_age_s = {age} WHERE id = ? AND deleted = 0",
        (now_s, chat_id),
    )
    if not deleted.rowcount:
        raise NotStoredError(f"There is no chat {chat_id}.")


def undo_delete(connection: sqlite3.Connection) -> Chat | None:
    """Restore the chat deleted last; None if there is none."""
    last = connection.execute("SELECT id FROM chat WHERE deleted > 0 ORDER BY deleted DESC LIMIT 1").fetchone()
    return change_chat(connection, last[0], _RESTORED, ()) if last else None


def grow_older(connection: sqlite3.Connection, now_s: float) -> None:
    """Add the time since the store was last opened to its age, but no more than `MOST_AT_ONCE_S`.

    So a clock that was wrong once can neither end the time for which deleted chats are kept, nor stop it.
    """
    connection.execute(
        "UPDATE store SET age_s = age_s + iif(seen_s = 0, 0, max(0, min(?, ? - seen_s))), seen_s = ?",
        (MOST_AT_ONCE_S, now_s, now_s),
    )


def forget_deleted(connection: sqlite3.Connection, kept_s: float) -> None:
    """Remove chats for good that have been deleted for longer than `kept_s` of the store's age."""
    # A wrong clock may have added one step too many.
    expired = connection.execute(
        "SELECT id FROM chat WHERE deleted > 0 AND deleted_age_s < (SELECT age_s FROM store) - ?",
        (kept_s + MOST_AT_ONCE_S,),
    ).fetchall()
    for chat_id in expired:
        if has_index(connection):
            message_ids = "SELECT id FROM message WHERE chat_id = ?"
            connection.execute(f"DELETE FROM message_index WHERE rowid IN ({message_ids})", chat_id)
        connection.execute("DELETE FROM chat WHERE id = ?", chat_id)


def import_chat(connection: sqlite3.Connection, chat: NewChat) -> Chat:
    """Add a chat with all its messages."""
    drafter = chat.drafter and cleaned(chat.drafter)
    facts = (cleaned(chat.title), cleaned(chat.model), drafter, rows.params_to_json(chat.params))
    newest = "(SELECT 1 + coalesce(max(activity), 0) FROM chat)"
    chat_id = _inserted(
        connection.execute(
            f"""INSERT INTO chat (title, model, drafter, params_json, created_s, updated_s, activity)
                VALUES (?, ?, ?, ?, ?, ?, {newest})""",
            (*facts, chat.created_s, chat.updated_s),
        )
    )
    ids: list[int] = []
    for message in chat.messages:
        parent_id = None if message.parent is None else ids[message.parent]
        ids.append(_import_message(connection, chat_id, parent_id, message))
    tree = tree_of(connection, chat_id)
    for id, message in zip(ids, chat.messages):
        if message.is_shown:
            _pick(connection, tree, id)
    return chat_of(connection, chat_id)


def add_missing(connection: sqlite3.Connection, chat_id: int, chat: NewChat) -> Chat:
    """Add those messages to a stored chat that only `chat` has. What is shown stays, or goes on from its end."""
    children: dict[int | None, dict[tuple[str, str], int]] = {}
    for id, parent_id, role, text in connection.execute(
        "SELECT id, parent_id, role, text FROM message WHERE chat_id = ? ORDER BY id", (chat_id,)
    ).fetchall():
        children.setdefault(parent_id, {}).setdefault((role, text), id)
    had_children, ids, added_shown = set(children), list[int](), list[int]()
    for message in chat.messages:
        parent_id = None if message.parent is None else ids[message.parent]
        stored_id = children.get(parent_id, {}).get((message.role, cleaned(message.text)))
        ids.append(stored_id or _import_message(connection, chat_id, parent_id, message))
        if stored_id is None and parent_id in had_children:
            connection.execute("UPDATE message SET picked = -1 WHERE id = ?", (ids[-1],))
        elif stored_id is None and message.is_shown:
            added_shown.append(ids[-1])
    tree = tree_of(connection, chat_id)
    for id in added_shown:
        _pick(connection, tree, id)
    mark_used(connection, chat_id, chat.updated_s)
    return chat_of(connection, chat_id)


def _import_message(
    connection: sqlite3.Connection, chat_id: int, parent_id: int | None, message: NewMessage
) -> int:
    texts = (cleaned(message.text), cleaned(message.thinking))
    facts = (message.state, message.created_s, message.typed_characters)
    id = _insert_message(connection, (chat_id, parent_id, message.role, *texts, *facts))
    if message.stats is not None:
        rows.insert_stats(connection, id, message.stats)
    return id


# Messages


def message_of(connection: sqlite3.Connection, message_id: int) -> StoredMessage:
    """A message with its figures and its position among its siblings."""
    return _stored_message(connection, _tree_around(connection, message_id), message_id)


def chat_id_of(connection: sqlite3.Connection, message_id: int) -> int:
    """The chat that a message is in."""
    row = connection.execute("SELECT chat_id FROM message WHERE id = ?", (message_id,)).fetchone()
    if row is None:
        raise NotStoredError(f"There is no message {message_id}.")
    return rows.whole(row[0])


def tree_of(connection: sqlite3.Connection, chat_id: int) -> Tree:
    """The tree of a chat's messages."""
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
    return [_stored_message(connection, tree, id) for id in tree.path()]


def messages(connection: sqlite3.Connection, chat_id: int) -> list[StoredMessage]:
    """All messages of a chat."""
    tree = tree_of(connection, chat_id)
    return [_stored_message(connection, tree, id) for id in tree]


def add_user_message(
    connection: sqlite3.Connection,
    chat_id: int,
    parent_id: int | None,
    text: str,
    now_s: float,
    typed_characters: int | None = None,
) -> StoredMessage:
    """Add the person's message to a chat: it gets a title if it has none, and is restored if it was deleted."""
    mark_used(connection, chat_id, now_s)
    change_chat(connection, chat_id, _RESTORED, ())
    give_title(connection, chat_id, text)
    return append(connection, chat_id, parent_id, "user", text, now_s, typed_characters)


def append(
    connection: sqlite3.Connection,
    chat_id: int,
    parent_id: int | None,
    role: Role,
    text: str,
    now_s: float,
    typed_characters: int | None = None,
    owner: str | None = None,
) -> StoredMessage:
    """Add a message to a chat and show it instead of its siblings. owner: the process that writes a reply."""
    if parent_id is not None and chat_id_of(connection, parent_id) != chat_id:
        raise NotStoredError(f"There is no message {parent_id} in chat {chat_id}.")
    state: State = "complete" if role == "user" else "generating"
    id = _insert_message(connection, (chat_id, parent_id, role, text, "", state, now_s, typed_characters))
    if owner is not None:
        connection.execute("UPDATE message SET owner = ? WHERE id = ?", (owner, id))
    return message_of(connection, id)


def grow(
    connection: sqlite3.Connection, message_id: int, pieces: tuple[str, str], state: State, owner: str
) -> None:
    """Append text and thinking to a reply that `owner` is writing."""
    # Another process may have taken this one for dead and marked the reply as interrupted.
    grown = connection.execute(
        """UPDATE message SET text = text || ?, thinking = thinking || ?, state = ?, is_indexed = 0
           WHERE id = ? AND owner = ? AND state IN ('generating', 'interrupted')""",
        (*pieces, state, message_id, owner),
    )
    if not grown.rowcount:
        row = connection.execute("SELECT owner FROM message WHERE id = ?", (message_id,)).fetchone()
        if row is not None and row[0] not in (None, owner):
            raise TakenOverError(f"Another window has gone on with reply {message_id}.")
        raise NotStoredError(f"There is no running reply {message_id}.")


def resume(connection: sqlite3.Connection, message_id: int, owner: str) -> StoredMessage:
    """Let `owner` go on with a reply that is not complete."""
    resumed = connection.execute(
        """UPDATE message SET state = 'generating', owner = ?
           WHERE id = ? AND role = 'assistant' AND state <> 'complete'""",
        (owner, message_id),
    )
    if not resumed.rowcount:
        if message_of(connection, message_id).state == "complete":
            raise StoreError("This reply is complete by now. Open the chat again to read it.")
        raise NotStoredError(f"There is no reply {message_id}.")
    return message_of(connection, message_id)


def is_running_elsewhere(connection: sqlite3.Connection, message_id: int, owner: str, now_s: float) -> bool:
    """Whether a process other than `owner` is writing a reply."""
    row = connection.execute("SELECT state, owner FROM message WHERE id = ?", (message_id,)).fetchone()
    if row is None or row[0] != "generating" or row[1] == owner:
        return False
    return is_running(connection, row[1], now_s)


def interrupt_ended(connection: sqlite3.Connection, owner: str, now_s: float) -> None:
    """Mark running replies as interrupted whose process has ended, other than those of `owner`."""
    owners = connection.execute("SELECT DISTINCT owner FROM message WHERE state = 'generating'").fetchall()
    for (other,) in owners:
        if other != owner and not is_running(connection, other, now_s):
            connection.execute(
                "UPDATE message SET state = 'interrupted' WHERE state = 'generating' AND owner IS ?", (other,)
            )


def version(connection: sqlite3.Connection, chat_id: int) -> tuple[int, int]:
    """The number of the shown leaf of a chat, from 1, and how many leaves it has."""
    tree = tree_of(connection, chat_id)
    leaves = tree.leaves()
    return (leaves.index(tree.path()[-1]) + 1, len(leaves)) if leaves else (1, 1)


def walk(connection: sqlite3.Connection, chat_id: int, step: int) -> None:
    """Show the leaf `step` places further, but not beyond the first or last one."""
    tree = tree_of(connection, chat_id)
    if leaves := tree.leaves():
        at = leaves.index(tree.path()[-1]) + step
        _show(connection, tree, leaves[max(0, min(at, len(leaves) - 1))])


def reveal(connection: sqlite3.Connection, chat_id: int, terms: Sequence[str]) -> None:
    """Show the newest message with every term, unless one is shown already."""
    tree = tree_of(connection, chat_id)
    matches = [id for id in messages_containing(connection, chat_id, terms) if id in tree]
    if matches and not set(matches) & set(tree.path()):
        _show(connection, tree, matches[0])


def _show(connection: sqlite3.Connection, tree: Tree, message_id: int) -> None:
    for id in tree.lineage(message_id):
        _pick(connection, tree, id)


def _stored_message(connection: sqlite3.Connection, tree: Tree, message_id: int) -> StoredMessage:
    row = connection.execute(f"SELECT {MESSAGE_COLUMNS} FROM message WHERE id = ?", (message_id,)).fetchone()
    if row is None:
        raise DamagedFileError(f"message {message_id} is only in an index")
    figures = connection.execute(
        f"SELECT {STATS_COLUMNS} FROM turn_stats WHERE message_id = ?", (message_id,)
    ).fetchone()
    sibling, siblings = tree.sibling(message_id)
    return msgspec.structs.replace(
        rows.message_from(row, rows.stats_from(figures) if figures else None),
        parent_id=tree.parent(message_id),
        sibling=sibling,
        siblings=siblings,
        is_shown=tree.shown(tree.parent(message_id)) == message_id,
    )


def _pick(connection: sqlite3.Connection, tree: Tree, message_id: int) -> None:
    if tree.shown(tree.parent(message_id)) != message_id:
        connection.execute("UPDATE message SET picked = ? WHERE id = ?", (tree.next_pick(message_id), message_id))


def _insert_message(connection: sqlite3.Connection, values: Sequence[Any]) -> int:
    """Insert chat_id, parent_id, role, text, thinking, state, created_s and typed_characters."""
    picked = "(SELECT 1 + coalesce(max(picked), 0) FROM message WHERE chat_id = ?1 AND parent_id IS ?2)"
    return _inserted(
        connection.execute(
            f"""INSERT INTO message
                (chat_id, parent_id, role, text, thinking, state, created_s, typed_characters, picked)
                VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, {picked})""",
            values,
        )
    )


def _inserted(cursor: sqlite3.Cursor) -> int:
    assert cursor.lastrowid is not None
    return cursor.lastrowid
