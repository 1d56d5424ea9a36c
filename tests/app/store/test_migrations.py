"""Databases of all earlier versions, and of a later one."""

from __future__ import annotations

import sqlite3
import stat
from pathlib import Path

import pytest

from app.store import opening, schema
from app.store.chat_store import ChatStore
from app.store.connection import connect
from app.store.schema import MIGRATIONS, migrate, version_of
from tests.app.store.support import Clock, chat_of_turns, is_sound, rows, say, texts

FIXTURES = Path(__file__).with_name("fixtures")
ONE_MORE = (*MIGRATIONS, ("ALTER TABLE chat ADD COLUMN colour TEXT NOT NULL DEFAULT 'grey'",
                          "UPDATE chat SET colour = 'red' WHERE title = 'first'"))  # fmt: skip
HALF_BROKEN = (*ONE_MORE, ("ALTER TABLE chat ADD COLUMN smell TEXT", "ALTER TABLE no_such_table ADD COLUMN x"))


def restored(path: Path, version: int) -> Path:
    """A database written by the Slipstream of that version."""
    path.parent.mkdir(parents=True)
    connection = sqlite3.connect(path)
    connection.executescript((FIXTURES / f"v{version}.sql").read_text(encoding="utf-8"))
    connection.close()
    return path


def test_there_is_a_fixture_of_every_version() -> None:
    assert {path.name for path in FIXTURES.iterdir()} == {f"v{n}.sql" for n in range(1, len(MIGRATIONS) + 1)}


@pytest.mark.parametrize("version", range(1, len(MIGRATIONS) + 1))
def test_a_store_of_an_earlier_version_goes_on(path: Path, clock: Clock, version: int) -> None:
    store = ChatStore.open(restored(path, version), clock)
    assert store.notice is None
    kyoto, rust = store.list_chats()
    assert (kyoto.title, kyoto.model, kyoto.params) == ("Trip to Kyoto", "e2b", {"temperature": 0.7})
    assert [(each.text, each.state, each.sibling, each.siblings) for each in store.path(kyoto.id)] == [
        ("When do the cherries blossom?", "complete", 1, 1),
        ("In April.", "complete", 1, 2),
        ("And the maples?", "complete", 1, 1),
        ("In Nov", "interrupted", 1, 1),
    ]
    first_reply = store.path(kyoto.id)[1]
    assert first_reply.stats
    assert (first_reply.stats.drafted_by_position, first_reply.stats.ttft_s) == ((5, 3), 0.25)
    assert [hit.chat_id for hit in store.search("late march")] == [kyoto.id]
    assert texts(store, rust.id) == ["What is a \0 lifetime?"]
    say(store, rust.id, "new")
    store.close()
    assert is_sound(path)
    assert rows(path, "PRAGMA user_version") == [(len(MIGRATIONS),)]


def test_migrations_run_once_in_order_after_a_copy(path: Path, clock: Clock) -> None:
    store = ChatStore.open(path, clock)
    store.create_chat("first")
    store.create_chat("second")
    store.close()
    connection = connect(path)
    for _ in range(2):
        migrate(connection, path, ONE_MORE)
    assert version_of(connection) == len(MIGRATIONS) + 1
    connection.close()
    assert rows(path, "SELECT title, colour FROM chat ORDER BY id") == [("first", "red"), ("second", "grey")]
    backup = path.with_name(f"chats.db.bak-v{len(MIGRATIONS)}")
    assert rows(backup, "SELECT title FROM chat ORDER BY id") == [("first",), ("second",)]
    assert stat.S_IMODE(backup.stat().st_mode) == 0o600
    assert not list(path.parent.glob("*.part"))
    old = ChatStore.open(backup, clock)
    assert old.notice is None, "the copy is a store of its own"
    old.close()


def test_a_migration_that_fails_leaves_the_version_before_it(path: Path, clock: Clock) -> None:
    store = ChatStore.open(path, clock)
    store.create_chat("first")
    store.close()
    connection = connect(path)
    with pytest.raises(sqlite3.OperationalError, match="no_such_table"):
        migrate(connection, path, HALF_BROKEN)
    assert not connection.in_transaction
    assert version_of(connection) == len(MIGRATIONS) + 1
    columns = [row[1] for row in connection.execute("PRAGMA table_info(chat)")]
    assert "colour" in columns
    assert "smell" not in columns
    connection.close()
    assert is_sound(path)


def test_an_empty_file_needs_no_backup(path: Path, clock: Clock) -> None:
    ChatStore.open(path, clock).close()
    assert not list(path.parent.glob("*.bak*"))


@pytest.fixture
def newer(path: Path, clock: Clock) -> Path:
    """A store written by a later Slipstream."""
    store = ChatStore.open(path, clock)
    chat_of_turns(store, 2, "first")
    store.close()
    connection = connect(path)
    migrate(connection, None, ONE_MORE)
    connection.close()
    return path


def test_a_newer_store_can_be_read_and_is_not_written(newer: Path, clock: Clock) -> None:
    before = newer.read_bytes()
    store = ChatStore.open(newer, clock)
    assert store.notice
    assert not store.is_saving
    assert "newer Slipstream" in store.notice
    assert f"this one knows {len(MIGRATIONS)}" in store.notice
    (chat,) = store.list_chats()
    assert (chat.title, len(store.path(chat.id)), len(store.search("question 1"))) == ("first", 4, 1)
    say(store, chat.id, "in memory")
    store.create_chat("too")
    assert texts(store, chat.id)[-1] == "in memory"
    store.close()
    assert newer.read_bytes() == before
    assert sorted(each.name for each in newer.parent.iterdir()) == ["chats.db", "chats.db.lock"]


def test_a_store_that_a_newer_slipstream_converts_meanwhile_is_left_alone(path: Path, clock: Clock) -> None:
    store = ChatStore.open(path, clock)
    chat = store.create_chat("first")
    say(store, chat.id, "before")
    connection = connect(path)
    migrate(connection, None, ONE_MORE)
    connection.close()
    say(store, chat.id, "after")
    assert texts(store, chat.id) == ["before", "after"]
    assert not store.is_saving
    assert store.notice
    assert "another Slipstream has upgraded" in store.notice
    store.close()
    assert rows(path, "SELECT text FROM message") == [("before",)]


def test_a_migration_that_cannot_be_done_leaves_the_file_and_goes_on_in_memory(
    path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ChatStore.open(path, clock)
    say(store, store.create_chat("first").id, "kept")
    store.close()
    before = rows(path, "SELECT text FROM message")
    broken = (*MIGRATIONS, ("ALTER TABLE no_such_table ADD COLUMN x",))

    def migrate_badly(connection: sqlite3.Connection, path: Path | None) -> None:
        schema.migrate(connection, path, MIGRATIONS if path is None else broken)

    monkeypatch.setattr(opening, "migrate", migrate_badly)
    store = ChatStore.open(path, clock)
    assert store.notice
    assert "no_such_table" in store.notice
    assert [chat.title for chat in store.list_chats()] == ["first"]
    store.close()
    assert rows(path, "SELECT text FROM message") == before
