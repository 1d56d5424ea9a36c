"""Whatever is at the path, the store opens it or moves it aside, never deletes it, and never crashes."""

from __future__ import annotations

import os
import random
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from app.store import opening
from app.store.chat_store import ChatStore
from app.store.errors import StoreError
from app.system import files
from tests.app.store.support import Clock, answer, chat_of_turns, is_sound, quick_folder, rows, say, texts
from tests.cases import cases

TURNS = 20


@pytest.fixture(scope="module")
def whole() -> bytes:
    """A file with twenty turns, closed properly."""
    with quick_folder() as folder:
        store = ChatStore.open(folder / "chats.db", Clock())
        chat_of_turns(store, TURNS - 2, "long")
        chat_of_turns(store, 2, "short")
        store.close()
        return (folder / "chats.db").read_bytes()


def put(path: Path, content: bytes) -> Path:
    path.parent.mkdir(exist_ok=True)
    for each in path.parent.iterdir():
        each.unlink()
    path.write_bytes(content)
    return path


def use(path: Path) -> ChatStore:
    """Open the store, read everything, write and search. Returns the open store."""
    aside = path.with_name("chats.db.corrupt-1")
    content = path.read_bytes() if path.is_file() and not aside.exists() else None
    store = ChatStore.open(path, Clock())
    if content is not None and aside.exists():
        assert aside.read_bytes() == content, "what is put aside at the start is as it was"
    for chat in store.list_chats(limit=-1):
        store.path(chat.id)
        store.messages(chat.id)
    store.search("question 1")
    store.list_chats("answer")
    chat_id = store.create_chat("new").id
    answer(store, say(store, chat_id, "still here?"), "still here")
    assert texts(store, chat_id) == ["still here?", "still here"]
    assert [hit.chat_id for hit in store.search("still here?")] == [chat_id]
    assert store.is_saving
    return store


def everything_is_kept_or_aside(path: Path, content: bytes, store: ChatStore) -> bool:
    """Whether the file was moved aside; if so, all of it is there and the notice says so."""
    aside = path.with_name("chats.db.corrupt-1")
    if not aside.exists():
        assert store.notice is None
        return False
    assert len(aside.read_bytes()) >= len(content), "damage met on the way was written beside meanwhile"
    assert store.notice
    assert "were damaged" in store.notice
    assert aside.name in store.notice
    return True


def message_count(store: ChatStore) -> int:
    return sum(chat.message_count for chat in store.list_chats(limit=-1)) - 2


def test_cut_at_any_byte(path: Path, whole: bytes) -> None:
    rescued = {}
    for size in range(0, len(whole), cases(1501, 1)):
        store = use(put(path, whole[:size]))
        if everything_is_kept_or_aside(path, whole[:size], store):
            rescued[size] = message_count(store)
        else:
            assert size == 0, "a file that was cut must not pass for a whole one"
        store.close()
        assert is_sound(path)
    assert max(rescued.values()) > 2 * TURNS - 10, "of a file that has lost only its end, all but the end"
    assert min(rescued.values()) == 0


def test_cut_within_the_last_page(path: Path, whole: bytes) -> None:
    """Offsets where only text is missing, which reads as zeros."""
    for size in range(len(whole) - 4095, len(whole), cases(63, 1)):
        store = ChatStore.open(put(path, whole[:size]), Clock())
        assert everything_is_kept_or_aside(path, whole[:size], store), size
        store.close()
    store = ChatStore.open(put(path, whole[:-1]), Clock())
    assert everything_is_kept_or_aside(path, whole[:-1], store)
    store.close()


def test_flipped_bytes_anywhere(path: Path, whole: bytes) -> None:
    random_ = random.Random(7)
    put_aside = 0
    for _ in range(cases(100, 2000)):
        content = bytearray(whole)
        at = random_.randrange(len(content))
        content[at] ^= random_.randrange(1, 256)
        put(path, bytes(content))
        if at in range(60, 64):
            # The version: the file then looks like that of a newer Slipstream.
            continue
        store = use(path)
        put_aside += everything_is_kept_or_aside(path, bytes(content), store)
        store.close()
        assert is_sound(path)
    assert put_aside


def test_many_flipped_bytes(path: Path, whole: bytes) -> None:
    random_ = random.Random(8)
    for _ in range(cases(25, 1000)):
        content = bytearray(whole)
        for _ in range(random_.choice((3, 30, 300))):
            content[random_.randrange(100, len(content))] = random_.randrange(256)
        store = use(put(path, bytes(content)))
        everything_is_kept_or_aside(path, bytes(content), store)
        store.close()
        assert is_sound(path)


def test_any_page_overwritten_costs_only_what_was_on_it(path: Path, whole: bytes) -> None:
    page_bytes = 4096
    rescued = []
    for start in range(page_bytes, len(whole), page_bytes):
        content = whole[:start] + b"\xa5" * page_bytes + whole[start + page_bytes :]
        store = use(put(path, content))
        if everything_is_kept_or_aside(path, content, store):
            rescued.append(message_count(store))
        store.close()
    assert sum(count < 2 * TURNS for count in rescued) <= len(rescued) // 2
    assert sorted(rescued)[len(rescued) // 2] == 2 * TURNS


@pytest.mark.parametrize("wrong", ["sound", "damaged"])
def test_messages_whose_chat_is_lost_are_shown_in_one(path: Path, clock: Clock, wrong: str) -> None:
    store = ChatStore.open(path, clock)
    chat_id = chat_of_turns(store, 2, "lost")
    store.close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA writable_schema = ON")
    connection.execute("DELETE FROM chat")
    connection.execute("UPDATE message SET parent_id = id + 1 WHERE id = 2")
    if wrong == "damaged":
        # What SQLite's own check reports.
        connection.execute("DELETE FROM sqlite_master WHERE name = 'message_tree'")
    connection.commit()
    connection.close()
    store = ChatStore.open(path, clock)
    if wrong == "damaged":
        assert store.notice
        (chat,) = store.list_chats()
        assert (chat.id, chat.title, chat.message_count) == (chat_id, "Rescued chat", 4)
        # Message 2 claims a newer parent: it becomes a root, and no path is circular.
        assert [(each.id, each.siblings) for each in store.messages(chat_id)] == [(1, 2), (2, 2), (3, 1), (4, 1)]
    else:
        assert store.list_chats() == []
    store.close()


def test_nonsense_in_a_sound_file_is_read_as_far_as_it_makes_sense(path: Path, clock: Clock) -> None:
    store = ChatStore.open(path, clock)
    chat_id = chat_of_turns(store, 2, "chat")
    store.close()
    connection = sqlite3.connect(path)
    connection.execute(
        """UPDATE message SET text = x'61ff62', thinking = 7, role = 'boss', state = x'00', created_s = 'noon',
           parent_id = 'x', picked = 'y' WHERE id = 3"""
    )
    connection.execute("UPDATE chat SET title = x'ff', params_json = '[', created_s = 9e999, drafter = 3")
    connection.execute("INSERT INTO turn_stats (message_id, drafted, drafted_by_position) VALUES (4, 'many', '{')")
    connection.commit()
    connection.close()
    store = use(path)
    chat = store.chat(chat_id)
    assert (chat.title, chat.params, chat.created_s, chat.drafter) == ("\ufffd", {}, 0.0, "3")
    third, fourth = store.messages(chat_id)[2:]
    assert (third.text, third.thinking, third.role, third.state) == ("a\ufffdb", "7", "user", "interrupted")
    assert (third.created_s, third.parent_id, third.siblings) == (0.0, None, 2)
    assert fourth.stats is None
    store.close()


def damage_while_open(path: Path) -> None:
    """Like a failing disk: every page but the first few is noise."""
    with path.open("r+b") as file:
        file.seek(2 * 4096)
        size = path.stat().st_size - 2 * 4096
        file.write(os.urandom(1) * size)


def test_damage_that_shows_while_running_is_put_aside_too(
    path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ChatStore.open(path, clock)
    chat_of_turns(store, TURNS, "long")
    store.close()
    monkeypatch.setattr(opening, "CHECKED_BYTES", 0)
    store = ChatStore.open(path, clock)
    damage_while_open(path)
    chats = store.list_chats("nowhere")
    assert chats == []
    assert store.notice
    assert "were damaged" in store.notice
    assert path.with_name("chats.db.corrupt-1").exists()
    say(store, store.create_chat("new").id, "hello")
    assert store.is_saving
    store.close()
    assert is_sound(path)


STRUCTURE = 10
"""The row in which FTS5 lists its segments; it is read first and trusted."""


def damage_index(path: Path, blocks: Callable[[int, bytes], bytes]) -> None:
    """Replace every block of the index with `blocks(row, was)`."""
    connection = sqlite3.connect(path)
    for row, was in connection.execute("SELECT id, block FROM message_index_data").fetchall():
        connection.execute("UPDATE message_index_data SET block = ? WHERE id = ?", (blocks(row, bytes(was)), row))
    connection.commit()
    connection.close()


@pytest.mark.parametrize(
    "structure",
    [
        pytest.param("72335f512103b6c93f9716ec899a7f96429d7eaa11fb1b7a4e13", id="asks for memory"),
        pytest.param("140d9e3e00", id="has a row written twice"),
        pytest.param("", id="is empty"),
        pytest.param("ff" * 40, id="is noise"),
    ],
)
def test_a_damaged_index_is_no_loss(path: Path, whole: bytes, structure: str) -> None:
    damage_index(put(path, whole), lambda row, was: bytes.fromhex(structure) if row == STRUCTURE else was)
    store = use(path)
    assert message_count(store) == 2 * TURNS
    assert len(store.search("question 13")) == 1
    store.close()
    assert is_sound(path)


def test_an_index_of_noise_is_no_loss(path: Path, whole: bytes) -> None:
    for seed in range(cases(100, 5000)):
        random_ = random.Random(seed)
        is_whole = random_.random() < 0.5

        def noise(row: int, was: bytes, random_: random.Random = random_, is_whole: bool = is_whole) -> bytes:
            is_hit = is_whole or row == STRUCTURE
            return random_.randbytes(random_.choice([5, 10, 40, len(was)])) if is_hit else was

        damage_index(put(path, whole), noise)
        store = use(path)
        assert message_count(store) == 2 * TURNS
        store.close()


def test_a_large_file_is_not_read_through_at_the_start(
    path: Path, whole: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "CHECKED_BYTES", 1000)
    content = whole[: 8 * 4096] + b"\xa5" * 4096 + whole[9 * 4096 :]
    store = use(put(path, content))
    assert message_count(store) > TURNS
    store.close()
    random_ = random.Random(9)
    for _ in range(cases(50, 2000)):
        flipped = bytearray(whole)
        for _ in range(20):
            flipped[random_.randrange(4096, len(whole))] ^= random_.randrange(1, 256)
        use(put(path, bytes(flipped))).close()


def test_an_index_with_a_row_that_makes_no_sense_is_damage(path: Path, whole: bytes) -> None:
    """Damage is noticed at the start, not when somebody happens to read it."""
    found = 0
    for at in range(0, len(whole), 4096):
        is_leaf_of_an_index = whole[at] == 10
        if not is_leaf_of_an_index or whole[at + 3 : at + 5] == b"\0\0":
            continue
        found += 1
        first_row = at + int.from_bytes(whole[at + 8 : at + 10])
        content = bytearray(whole)
        content[first_row + 1] = 0x7F  # its header is larger than the row
        store = ChatStore.open(put(path, bytes(content)), Clock())
        assert everything_is_kept_or_aside(path, bytes(content), store)
        assert sum(chat.message_count for chat in store.list_chats()) == 2 * TURNS
        store.close()
    assert found >= 2


def test_a_constraint_that_breaks_in_a_large_damaged_file_is_damage(
    path: Path, whole: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "CHECKED_BYTES", 1000)
    store = ChatStore.open(put(path, whole), Clock())
    chat_id = store.create_chat("new").id
    with closing(sqlite3.connect(path)) as connection, connection:
        # The newest activity is unreadable, so the next number may be invalid.
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute(
            "UPDATE sqlite_master SET sql = replace(sql, 'activity INTEGER NOT NULL', 'activity INTEGER')"
            " WHERE name = 'chat'"
        )
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE chat SET activity = NULL")
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute(
            "UPDATE sqlite_master SET sql = replace(sql, 'activity INTEGER', 'activity INTEGER NOT NULL')"
            " WHERE name = 'chat'"
        )
    store.close()
    store = ChatStore.open(path, Clock())
    assert say(store, chat_id, "still here?")
    assert store.notice
    assert "were damaged" in store.notice
    store.close()


@pytest.mark.parametrize(
    ("content", "is_aside"),
    [
        (b"", False),
        (b"S", True),
        (b"SQLite", True),
        (b"\0" * 5000, True),
        (b"title: my notes\n" * 500, True),
        (b"SQLite format 3\0", True),
        (b"SQLite format 3\0" + b"\xff" * 8192, True),
    ],
)
def test_what_is_no_database_is_put_aside(path: Path, content: bytes, is_aside: bool) -> None:
    store = use(put(path, content))
    assert everything_is_kept_or_aside(path, content, store) == is_aside
    store.close()


def test_a_database_of_another_program_is_put_aside(path: Path) -> None:
    path.parent.mkdir()
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE bookmarks (url TEXT)")
    connection.commit()
    connection.close()
    before = path.read_bytes()
    store = use(path)
    assert everything_is_kept_or_aside(path, before, store)
    store.close()


def test_a_chat_table_without_its_columns_is_put_aside(path: Path, clock: Clock) -> None:
    store = ChatStore.open(path, clock)
    chat_id = chat_of_turns(store, 2, "chat")
    store.close()
    connection = sqlite3.connect(path)
    connection.execute("ALTER TABLE chat DROP COLUMN params_json")
    connection.close()
    store = use(path)
    assert store.notice
    assert store.chat(chat_id).title == "chat"
    assert len(store.path(chat_id)) == 4
    store.close()


def test_a_name_in_the_schema_that_is_not_utf8_is_put_aside(path: Path, whole: bytes) -> None:
    content = whole.replace(b"CREATE TABLE turn_stats", b"CREATE \xff\xfeBLE turn_stats")
    assert content != whole
    store = use(put(path, content))
    assert everything_is_kept_or_aside(path, content, store)
    store.close()


def test_damaged_files_get_numbers(path: Path) -> None:
    for number in range(1, 4):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"no database %d" % number * 100)
        ChatStore.open(path, Clock()).close()
    aside = sorted(path.parent.glob("*corrupt*"))
    assert [each.name for each in aside] == ["chats.db.corrupt-1", "chats.db.corrupt-2", "chats.db.corrupt-3"]
    assert [each.read_bytes()[:13] for each in aside] == [b"no database 1", b"no database 2", b"no database 3"]


def test_a_file_lost_beside_its_journal_keeps_the_journal(path: Path, clock: Clock) -> None:
    store = ChatStore.open(path, clock)
    say(store, store.create_chat().id, "hello")
    journal = path.with_name("chats.db-wal").read_bytes()
    store.close()
    put(path, b"")
    path.with_name("chats.db-wal").write_bytes(journal)
    store = use(path)
    assert store.notice
    assert path.with_name("chats.db.corrupt-1-wal").read_bytes() == journal
    store.close()


def test_a_rescue_cut_short_before_the_exchange_is_done_again(path: Path, whole: bytes) -> None:
    put(path, whole[:-4096])
    path.with_name("chats.db.rescued").write_bytes(b"half a rescue")
    store = use(path)
    assert message_count(store) > TURNS
    assert not path.with_name("chats.db.rescued").exists()
    store.close()


def test_an_exchange_cut_short_is_finished(path: Path, whole: bytes) -> None:
    put(path, whole)
    path.rename(path.with_name("chats.db.rescued"))
    store = use(path)
    assert message_count(store) == 2 * TURNS
    store.close()


def directory(path: Path) -> None:
    path.mkdir()


def symlink_loop(path: Path) -> None:
    path.symlink_to(path)


def link_to_nowhere(path: Path) -> None:
    path.symlink_to(path.parent / "no" / "such" / "file")


@pytest.mark.parametrize("make", [directory, os.mkfifo, symlink_loop, link_to_nowhere])
def test_something_else_in_the_place_of_the_file_is_left_alone(
    path: Path, clock: Clock, make: Callable[[Path], None]
) -> None:
    path.parent.mkdir()
    make(path)
    before = path.lstat()
    store = ChatStore.open(path, clock)
    assert store.notice
    assert str(path) in store.notice
    assert "not saved" in store.notice
    assert not store.is_saving
    chat = store.create_chat()
    say(store, chat.id, "in memory")
    assert texts(store, chat.id) == ["in memory"]
    store.close()
    assert path.lstat().st_ino == before.st_ino
    assert sorted(each.name for each in path.parent.iterdir()) == ["chats.db", "chats.db.lock"]


def test_a_file_in_the_place_of_the_folder(path: Path, clock: Clock) -> None:
    path.parent.write_text("mine")
    store = ChatStore.open(path, clock)
    assert store.notice
    assert "not saved" in store.notice
    say(store, store.create_chat().id, "in memory")
    store.close()
    assert path.parent.read_text() == "mine"


def test_a_link_to_a_store_elsewhere_is_followed(path: Path, clock: Clock) -> None:
    path.parent.mkdir()
    elsewhere = path.parent / "elsewhere" / "my.db"
    elsewhere.parent.mkdir()
    path.symlink_to(elsewhere)
    store = use(path)
    assert store.notice is None
    store.close()
    assert path.is_symlink()
    assert rows(elsewhere, "SELECT title FROM chat") == [("new",)]


def test_an_error_of_the_program_itself_costs_no_file(store: ChatStore, path: Path) -> None:
    say(store, store.create_chat("chat").id, "hello")
    with pytest.raises(StoreError, match="no such column"):
        store._change_chat(1, "no_such_column = ?", "x")
    assert store.is_saving
    assert [chat.title for chat in store.list_chats()] == ["chat"]
    assert not list(path.parent.glob("*corrupt*"))


def test_another_opener_that_never_ends_is_not_waited_for(
    path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "LOCK_WAIT_S", -1.0)
    path.parent.mkdir()
    with files.opening_alone(path):
        store = ChatStore.open(path, clock)
        assert store.notice
        assert "another Slipstream has been opening" in store.notice
        say(store, store.create_chat().id, "in memory")
        store.close()
    store = ChatStore.open(path, clock)
    assert store.notice is None
    store.close()
