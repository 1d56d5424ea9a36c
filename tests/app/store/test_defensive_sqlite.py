"""Chats are rescued with an SQLite in defensive mode, as macOS's own library is.

Defensive mode ignores `PRAGMA writable_schema`, by which a shortened file is otherwise read (sqlite.org,
SQLITE_DBCONFIG_DEFENSIVE).
"""

from __future__ import annotations

import ctypes
import ctypes.util
import sqlite3
import sys
from pathlib import Path

import pytest

from app.store import connection
from app.store.chat_store import ChatStore
from tests.app.store.support import Clock, chat_of_turns, is_sound
from tests.app.store.test_damage import put

DEFENSIVE = 1010
"""SQLITE_DBCONFIG_DEFENSIVE."""
TURNS = 20


def make_defensive(open_connection: sqlite3.Connection) -> sqlite3.Connection:
    """The same connection in defensive mode. Before Python 3.12, by SQLite's handle, which is its first field."""
    if sys.version_info >= (3, 12):
        open_connection.setconfig(DEFENSIVE, True)
        return open_connection
    library = ctypes.CDLL(ctypes.util.find_library("sqlite3") or "libsqlite3.so.0")
    handle = ctypes.c_void_p.from_address(id(open_connection) + object.__basicsize__)
    is_on = ctypes.c_int(-1)
    status = library.sqlite3_db_config(handle, ctypes.c_int(DEFENSIVE), ctypes.c_int(1), ctypes.byref(is_on))
    assert (status, is_on.value) == (sqlite3.SQLITE_OK, 1)
    return open_connection


@pytest.fixture
def whole(tmp_path: Path) -> bytes:
    store = ChatStore.open(tmp_path / "whole.db", Clock())
    chat_of_turns(store, TURNS, "long")
    store.close()
    return (tmp_path / "whole.db").read_bytes()


@pytest.fixture
def defensive(whole: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = connection._connection
    monkeypatch.setattr(connection, "_connection", lambda name, is_uri=False: make_defensive(plain(name, is_uri)))


@pytest.mark.usefixtures("defensive")
def test_the_mode_is_on(tmp_path: Path) -> None:
    opened = connection.connect(tmp_path / "x.db")
    opened.execute("PRAGMA writable_schema = ON")
    opened.execute("CREATE TABLE t (a)")
    with pytest.raises(sqlite3.OperationalError, match="may not be modified"):
        opened.execute("UPDATE sqlite_master SET sql = ''")
    opened.close()


@pytest.mark.usefixtures("defensive")
@pytest.mark.parametrize("lost_bytes", [1, 4096, 3 * 4096])
def test_a_file_that_lost_its_end_keeps_all_but_the_end(whole: bytes, tmp_path: Path, lost_bytes: int) -> None:
    path = put(tmp_path / "store" / "chats.db", whole[:-lost_bytes])
    store = ChatStore.open(path, Clock())
    assert "were damaged" in str(store.notice)
    kept = sum(chat.message_count for chat in store.list_chats(limit=-1))
    store.close()
    assert is_sound(path)
    assert kept > 2 * TURNS - 15


@pytest.mark.usefixtures("defensive")
def test_an_overwritten_page_costs_what_was_on_it(whole: bytes, tmp_path: Path) -> None:
    content = bytearray(whole)
    content[-2 * 4096 : -4096] = bytes(4096)
    store = ChatStore.open(put(tmp_path / "store" / "chats.db", bytes(content)), Clock())
    kept = sum(chat.message_count for chat in store.list_chats(limit=-1))
    store.close()
    assert kept > 2 * TURNS - 15


@pytest.mark.usefixtures("defensive")
def test_a_sound_store_works_as_ever(whole: bytes, tmp_path: Path) -> None:
    store = ChatStore.open(put(tmp_path / "store" / "chats.db", whole), Clock())
    assert store.notice is None
    assert store.search("question")
    chat_of_turns(store, 1, "short")
    store.close()
