"""Processes that are killed, starved of space or run against each other: no acknowledged message is lost."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from time import process_time

import pytest

from app.store.chat_store import ChatStore
from app.store.errors import StoreReplacedError
from app.store.opening import open_database
from app.store.schema import MIGRATIONS
from tests.app.store import children
from tests.app.store.support import Clock, is_sound, rows, say, texts
from tests.cases import cases
from tests.paths import ROOT

pytestmark = pytest.mark.sampled(2)

REOPENED_S = 1.0
"""Of this process's own time: a busy machine is not counted."""


def start(role: str, path: Path, *numbers: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.app.store.children", role, str(path), *map(str, numbers)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def finished(child: subprocess.Popen[str]) -> list[str]:
    out, _ = child.communicate(timeout=600)
    assert child.returncode == 0
    return out.splitlines()


def kept(store: ChatStore) -> set[str]:
    """The first and last words of every message."""
    ends = set()
    for chat in store.list_chats(limit=-1):
        for message in store.messages(chat.id):
            ends |= {message.text.split(" x")[0], message.text[message.text.rfind("answer") :]}
    return ends


@pytest.mark.parametrize("number", [pytest.param(n, marks=pytest.mark.slow if n >= 3 else ()) for n in range(50)])
def test_killed_at_a_random_moment(path: Path, number: int) -> None:
    kill_and_look(path, cases(1, 10), number)


def kill_and_look(path: Path, times: int, seed: int) -> None:
    random_ = random.Random(seed)
    acknowledged: set[str] = set()
    for time in range(times):
        child = start("write_turns", path, seed * 1000 + time)
        assert child.stdout
        for _ in range(random_.randrange(1, 60)):
            acknowledged.add(child.stdout.readline().strip())
        child.kill()
        acknowledged |= {line.strip() for line in child.stdout if line.endswith("\n")}
        child.wait()
        child.stdout.close()
        began_s = process_time()
        store = ChatStore.open(path)
        assert process_time() - began_s < REOPENED_S
        assert store.notice is None
        assert acknowledged <= kept(store)
        states = {message.state for chat in store.list_chats() for message in store.messages(chat.id)}
        assert states <= {"complete", "interrupted"}
        store.close()
        assert is_sound(path)


def lives(lines: list[str]) -> Iterator[tuple[Path, set[str]]]:
    for line in lines:
        folder, *acknowledged = line.split("\t")
        yield Path(folder), set(acknowledged)


def test_killed_at_any_step_of_sqlite(folder: Path) -> None:
    """From the first statement on an empty disk to the second start: creating, migrating, writing, closing."""
    stride = cases(389, 3)
    counts = []
    for where, acknowledged in lives(finished(start("die_at_each_step", folder, 1, 29_000, stride))):
        store = ChatStore.open(where / "chats.db")
        assert store.notice is None
        assert acknowledged <= kept(store)
        say(store, store.create_chat().id, "on we go")
        store.close()
        assert is_sound(where / "chats.db")
        counts.append(len(acknowledged))
    assert counts[0] == 0
    assert counts[-1] == 24, "the last one has lived its whole life"
    assert len(set(counts)) > 10


def deaths(lines: list[str]) -> Iterator[tuple[Path, str, set[str]]]:
    """The folder of the store, where its process died (empty: it did not), and what it had acknowledged."""
    for line in lines:
        folder, *said = line.split("\t")
        died = said.pop().removeprefix("died ") if said and said[-1].startswith("died ") else ""
        yield Path(folder), died, set(said)


def test_killed_before_and_after_everything_that_a_conversation_keeps(folder: Path) -> None:
    points = []
    for where, died, acknowledged in deaths(finished(start("die_at_each_point_of_a_conversation", folder))):
        store = ChatStore.open(where / "chats.db", Clock())
        assert store.notice is None
        texts_kept = "\n".join(message.text for chat in store.list_chats() for message in store.messages(chat.id))
        is_out_of_sight = died in ("after delete", "before undo_delete")
        assert is_out_of_sight or all(text in texts_kept for text in acknowledged), died
        states = {message.state for chat in store.list_chats() for message in store.messages(chat.id)}
        assert states <= {"complete", "stopped", "interrupted"}
        if is_out_of_sight:
            assert store.undo_delete(), "deleted is not gone"
        assert not (export := where / "chat.json").exists() or export.read_text().endswith("}\n"), died
        say(store, store.create_chat().id, "on we go")
        store.close()
        assert is_sound(where / "chats.db")
        points.append(died)
    wanted = "ask", "begin_reply", "grow_reply", "finish_reply", "continue_reply", "rename", "set_params"
    assert points[-1] == ""
    assert {f"{when} {call}" for call in (*wanted, "delete", "undo_delete", "replace_file") for when in
            ("before", "after")} <= set(points)  # fmt: skip


def test_killed_at_any_point_of_a_migration(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = finished(start("die_at_each_point_of_a_migration", folder))
    children.know_the_next_version(monkeypatch.setattr)
    points = []
    for where, died, _ in deaths(lines):
        store = ChatStore.open(where / "chats.db", Clock())
        assert store.notice is None, died
        assert [(chat.title, chat.message_count) for chat in store.list_chats()] == [("second", 4), ("first", 4)]
        store.close()
        assert rows(where / "chats.db", "SELECT title, colour FROM chat ORDER BY id") == [
            ("first", "red"), ("second", "grey")]  # fmt: skip
        backup = where / f"chats.db.bak-v{len(MIGRATIONS)}"
        assert rows(backup, "SELECT title FROM chat ORDER BY id") == [("first",), ("second",)], died
        assert is_sound(where / "chats.db"), died
        points.append(died)
    assert points[-1] == ""
    assert {"before VACUUM INTO", "before replace", "after replace", "before ALTER TABLE", "before UPDATE chat",
            "before COMMIT"} <= set(points)  # fmt: skip


def test_killed_at_any_point_of_putting_a_damaged_store_aside(folder: Path) -> None:
    points = []
    counts = set()
    for where, died, _ in deaths(finished(start("die_at_each_point_of_putting_aside", folder))):
        store = ChatStore.open(where / "chats.db", Clock())
        found = [each for each in where.iterdir() if each.name.startswith("chats.db.corrupt-")]
        assert [each.name for each in found] == ["chats.db.corrupt-1"], died
        counts.add((len(found[0].read_bytes()), sum(chat.message_count for chat in store.list_chats())))
        say(store, store.create_chat().id, "on we go")
        store.close()
        assert is_sound(where / "chats.db"), died
        points.append(died)
    assert points[-1] == ""
    assert {"before rename", "after rename", "before INSERT OR", "before COMMIT"} <= set(points)
    assert len(counts) == 1, "the damaged file is whole, and as much was rescued, whenever it died"


def test_a_disk_that_is_full_at_any_size(folder: Path) -> None:
    stride = cases(20_011, 4001)
    counts = []
    for where, acknowledged in lives(finished(start("starve_at_each_size", folder, 0, 920_000, stride))):
        store = ChatStore.open(where / "chats.db")
        assert store.notice is None
        assert acknowledged <= kept(store)
        say(store, store.create_chat().id, "on we go")
        store.close()
        assert is_sound(where / "chats.db")
        counts.append(len(acknowledged))
    assert counts[0] == 0
    assert counts[-1] == 24
    assert len(set(counts)) > 3


def test_when_the_disk_is_full_the_chat_goes_on_in_memory_and_says_so(store: ChatStore, path: Path) -> None:
    chat = store.create_chat("chat")
    say(store, chat.id, "on disk")
    reply = store.begin_reply(store.path(chat.id)[-1].id)
    store.grow_reply(reply.id, "half ")
    pages = store._database._opened.connection.execute("PRAGMA page_count").fetchone()[0]
    store._database._opened.connection.execute(f"PRAGMA max_page_count = {pages}")
    store.grow_reply(reply.id, "a word " * 10_000)
    assert not store.is_saving
    assert store.notice
    assert "full" in store.notice
    assert "no longer saved" in store.notice
    store.finish_reply(reply.id, "complete")
    say(store, chat.id, "in memory")
    assert texts(store, chat.id) == ["on disk", "half " + "a word " * 10_000, "in memory"]
    assert [hit.chat_id for hit in store.search("in memory")] == [chat.id]
    again = ChatStore.open(path)
    assert (again.notice, texts(again, chat.id)) == (None, ["on disk", "half "])
    again.close()


def test_two_processes_write_at_once(path: Path) -> None:
    count = cases(150, 1000)
    children = [start("write_some_turns", path, seed, count) for seed in (1, 2)]
    acknowledged = [finished(child) for child in children]
    store = ChatStore.open(path)
    assert store.notice is None
    for seed, lines in zip((1, 2), acknowledged):
        assert len(lines) == 2 * count + count // 10
        chat = next(chat for chat in store.list_chats() if chat.title == f"writer {seed}")
        found = [
            message.text[message.text.rfind("answer") :] if message.role == "assistant" else message.text
            for message in store.messages(chat.id)
        ]
        own = [text for text in found if text and "visit" not in text]
        assert own == [line for line in lines if "visit" not in line]
    assert set().union(*acknowledged) <= kept(store)
    store.close()
    assert is_sound(path)


def test_many_processes_begin_the_same_store_at_once(path: Path) -> None:
    children = [start("write_some_turns", path, seed, 2) for seed in range(6)]
    assert all(len(finished(child)) == 4 for child in children)
    assert rows(path, "SELECT count(*) FROM chat") == [(6,)]
    assert [each.name for each in path.parent.glob("*corrupt*")] == []


def test_a_folder_deleted_under_the_running_program_is_made_again(store: ChatStore, path: Path) -> None:
    chat = store.create_chat("chat")
    say(store, chat.id, "before")
    for each in path.parent.iterdir():
        each.unlink()
    path.parent.rmdir()
    say(store, chat.id, "after")
    assert store.is_saving
    assert store.notice is None
    again = ChatStore.open(path)
    assert texts(again, chat.id) == ["before", "after"]
    again.close()


def test_a_store_replaced_under_the_running_program_is_not_overwritten(
    store: ChatStore, path: Path, clock: Clock
) -> None:
    chat = store.create_chat("chat")
    say(store, chat.id, "here")
    elsewhere = ChatStore.open(path.with_name("other.db"), clock)
    for text in ("their", "chats"):
        say(elsewhere, elsewhere.create_chat().id, text)
    elsewhere.close()
    path.with_name("other.db").replace(path)
    for journal in ("chats.db-wal", "chats.db-shm"):
        path.with_name(journal).unlink()
    with pytest.raises(StoreReplacedError, match="another file than before"):
        say(store, chat.id, "into somebody else's chat")
    assert say(store, store.create_chat().id, "goes to what is there now")
    again = open_database(path).connection
    found = [text for (text,) in again.execute("SELECT text FROM message ORDER BY id")]
    assert found == ["their", "chats", "goes to what is there now"]
    again.close()


def test_a_database_locked_by_another_program_is_said_in_words(
    store: ChatStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sqlite3

    from app.store.errors import StoreBusyError

    chat = store.create_chat("chat")
    store._database._opened.connection.execute("PRAGMA busy_timeout = 0")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreBusyError, match="locked by another program"):
        say(store, chat.id, "now")
    assert texts(store, chat.id) == []
    other.execute("COMMIT")
    say(store, chat.id, "now")
    other.close()
    assert texts(store, chat.id) == ["now"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_folder_that_cannot_be_written(path: Path, clock: Clock) -> None:
    as_somebody_else(path, clock, folder_mode=0o555, file_mode=0o644)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_file_that_cannot_be_written(path: Path, clock: Clock) -> None:
    as_somebody_else(path, clock, folder_mode=0o777, file_mode=0o444)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_file_that_cannot_be_read(path: Path, clock: Clock) -> None:
    as_somebody_else(path, clock, folder_mode=0o777, file_mode=0o000, is_readable=False)


def as_somebody_else(path: Path, clock: Clock, folder_mode: int, file_mode: int, is_readable: bool = True) -> None:
    store = ChatStore.open(path, clock)
    chat = store.create_chat("chat")
    say(store, chat.id, "on disk")
    store.close()
    path.parent.parent.chmod(0o755)
    path.with_name("chats.db.lock").chmod(0o666)
    path.chmod(file_mode)
    path.parent.chmod(folder_mode)
    before = path.read_bytes()
    child = os.fork()
    if child == 0:
        status = 1
        with suppress(BaseException):
            os.setgid(65534)
            os.setuid(65534)
            status = _look(path, clock, is_readable)
        os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert path.read_bytes() == before
    path.parent.chmod(0o700)


def _look(path: Path, clock: Clock, is_readable: bool) -> int:
    store = ChatStore.open(path, clock)
    assert store.notice
    assert "not saved" in store.notice
    assert not store.is_saving
    chats = store.list_chats()
    assert [chat.title for chat in chats] == (["chat"] if is_readable else [])
    chat = chats[0] if chats else store.create_chat()
    say(store, chat.id, "in memory")
    assert texts(store, chat.id) == (["on disk"] if is_readable else []) + ["in memory"]
    store.close()
    return 0
