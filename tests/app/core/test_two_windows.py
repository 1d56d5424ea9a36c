"""Two windows on one chat, as real processes: nothing is lost, nothing is mixed."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.core.conversation import DELETED, REPLACED, TAKEN_OVER, Conversation
from app.store.chat_store import RUNNING_ELSEWHERE, ChatStore
from app.store.errors import RunningElsewhereError
from app.store.membership import STALE_S
from tests.app.core.window import Window, window
from tests.app.store.support import last_chat, quick_folder, rows, texts
from tests.paths import ROOT


@pytest.fixture
def path() -> Iterator[Path]:
    with quick_folder() as folder:
        (folder / "data").mkdir()
        yield folder / "data" / "chats.db"


@pytest.fixture
def first(path: Path) -> Iterator[Window]:
    """A window with a running reply of two words."""
    with window(path) as first:
        first.run("conversation.ask('Count to four')")
        write(first, "one two")
        yield first


def write(window: Window, text: str) -> None:
    assert window.run(f"conversation.append({text!r})") == "None"
    assert window.run("conversation.flush()") == "None"


@pytest.mark.parametrize("command", [["list"], ["export"], ["show", "1"], ["search", "two"], ["list", "--json"]])
def test_another_process_sees_a_running_reply_and_leaves_it(path: Path, first: Window, command: list[str]) -> None:
    program = [sys.executable, "-c", "import sys; from app.cli import main; sys.exit(main())", "chats", *command]
    environment = {**os.environ, "SLIPSTREAM_HOME": str(path.parent.parent)}
    run = subprocess.run(program, cwd=ROOT, env=environment, capture_output=True, check=True, text=True)
    assert ("Reply (running in another window):" in run.stdout) == (command[0] == "show")
    assert last_chat(path)[1:] == [("assistant", "one two", "generating")]
    write(first, " three")
    assert first.run("conversation.end('complete')") == "None"
    assert last_chat(path)[1:] == [("assistant", "one two three", "complete")]


def test_a_running_reply_cannot_be_continued_elsewhere(path: Path, first: Window) -> None:
    store = ChatStore.open(path)
    second = Conversation(store)
    second.open(1)
    assert second.last
    assert second.last.reply
    assert second.last.reply.state == "generating"
    for call in (second.go_on, lambda: second.ask("And then?")):
        with pytest.raises(RunningElsewhereError, match=RUNNING_ELSEWHERE):
            call()
    first.run("conversation.append(' three')")
    first.run("conversation.end('stopped')")
    assert second.go_on()
    assert second.last.text == "one two three", "also what was written since it was opened here"
    second.append(" four")
    second.end("complete")
    assert first.run("conversation.go_on()").startswith("StoreError: This reply is complete by now")
    assert last_chat(path)[1:] == [("assistant", "one two three four", "complete")]
    store.close()


def taken_over(path: Path) -> Conversation:
    """The chat in this process, once the owner of its reply counts as gone."""
    conversation = Conversation(ChatStore.open(path))
    conversation.open(1)
    return conversation


def test_a_reply_whose_process_was_killed_is_interrupted(path: Path, first: Window) -> None:
    first.process.kill()
    first.process.wait()
    second = taken_over(path)
    assert last_chat(path)[1:] == [("assistant", "one two", "interrupted")]
    assert second.go_on()
    second.append(" three")
    second.end("complete")
    assert last_chat(path)[1:] == [("assistant", "one two three", "complete")]
    assert rows(path, "SELECT count(*) FROM process") == [(1,)], "the row of the killed process is gone"


def test_a_process_id_that_another_process_has_now_owns_nothing(path: Path, first: Window) -> None:
    change(path, "UPDATE process SET started = 'long ago'")
    taken_over(path)
    assert last_chat(path)[1:] == [("assistant", "one two", "interrupted")]


@pytest.mark.parametrize("is_continued", [False, True])
def test_a_process_that_hangs_loses_its_reply_and_nothing_is_mixed(
    path: Path, first: Window, is_continued: bool
) -> None:
    change(path, f"UPDATE process SET beat_s = beat_s - {STALE_S + 1}")
    second = taken_over(path)
    assert last_chat(path)[1:] == [("assistant", "one two", "interrupted")]
    if is_continued:
        assert second.go_on()
        second.append(" drei vier")
        second.end("complete")
    first.run("conversation.append(' three four')")
    assert first.run("conversation.end('complete')") == "None"
    kept = {text for role, text, state in last_chat(path) if role == "assistant"}
    assert kept == ({"one two drei vier", "one two three four"} if is_continued else {"one two three four"})
    assert first.run("conversation.take_news()") == str([TAKEN_OVER] if is_continued else [])


def test_a_reply_without_words_shows_that_it_runs(path: Path, first: Window) -> None:
    before = rows(path, "SELECT beat_s, writes FROM process")
    first.run("setattr(conversation, '_saved_at_s', -1e9)")
    first.run("conversation.flush()")
    after = rows(path, "SELECT beat_s, writes FROM process")
    assert after[0] > before[0]


def test_a_chat_deleted_while_its_reply_runs_stays_deleted(path: Path, first: Window) -> None:
    store = ChatStore.open(path)
    store.delete(1)
    write(first, " three")
    assert first.run("conversation.take_news()") == str([DELETED])
    first.run("conversation.append(' four')")
    assert first.run("conversation.end('complete')") == "None"
    assert first.run("conversation.take_news()") == "[]", "it is told once"
    assert store.list_chats() == []
    assert store.undo_delete()
    assert texts(store, 1) == ["Count to four", "one two three four"]
    store.close()


def test_another_database_at_the_path_gets_the_chat_and_no_rest_of_a_reply(path: Path, first: Window) -> None:
    other = path.with_name("other.db")
    store = ChatStore.open(other)
    for _ in range(2):
        Conversation(store).ask("Theirs")
    store.close()
    other.replace(path)
    for journal in ("chats.db-wal", "chats.db-shm"):
        path.with_name(journal).unlink(missing_ok=True)
    first.run("conversation.append(' three')")
    assert first.run("conversation.end('complete')") == "None"
    assert first.run("conversation.take_news()") == str([REPLACED])
    assert [text for (text,) in rows(path, "SELECT text FROM message ORDER BY id")] == [
        "Theirs", "", "Theirs", "", "Count to four", "one two three"]  # fmt: skip
    first.run("conversation.ask('And five?')")
    assert [text for _, text, _ in last_chat(path)] == ["Count to four", "one two three", "And five?", ""]


@pytest.mark.parametrize("is_in_place", [False, True])
def test_a_restored_backup_gets_the_chat_and_no_rest_of_a_reply(path: Path, is_in_place: bool) -> None:
    """In the backup, the reply's number belongs to a message of somebody else's."""
    with window(path) as first:
        backup = path.with_name("backup.db")
        first.run("conversation.ask('Count to four')")
        first.run("conversation.end('complete')")
        change(path, f"VACUUM INTO '{backup}'")
        first.run("conversation.ask('Go on')")
        write(first, "one two")
        store = ChatStore.open(backup)
        Conversation(store).ask("Theirs")
        store.close()
        if is_in_place:
            restored, target = sqlite3.connect(backup), sqlite3.connect(path)
            restored.backup(target)
            restored.close()
            target.close()
        else:
            shutil.copy(backup, path.with_name("new.db"))
            path.with_name("new.db").replace(path)
            for journal in ("chats.db-wal", "chats.db-shm"):
                path.with_name(journal).unlink(missing_ok=True)
        first.run("conversation.append(' three')")
        assert first.run("conversation.end('complete')") == "None"
        assert first.run("conversation.take_news()") == str([REPLACED])
        assert [text for (text,) in rows(path, "SELECT text FROM message ORDER BY id")] == [
            "Count to four", "", "Theirs", "", "Count to four", "", "Go on", "one two three"]  # fmt: skip


def test_without_a_conversation_a_replaced_file_is_said_and_left_alone(path: Path) -> None:
    with window(path) as first:
        first.run("store.create_chat('ours')")
        change(path, "DELETE FROM process")
        assert first.run("store.rename(1, 'theirs')").startswith("StoreReplacedError:")
        assert rows(path, "SELECT title FROM chat") == [("ours",)]
        assert first.run("store.rename(1, 'asked again').title") == "asked again"


def change(path: Path, sql: str) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute(sql)
    connection.close()
