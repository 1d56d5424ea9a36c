"""A disk that is full for a while: the store returns to its file, and nothing written meanwhile is missing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.core.conversation import Conversation
from app.store.chat_store import ChatStore
from app.store.database import RETURN_INTERVAL_S, SAVED_AGAIN
from app.store.records import TurnStats
from tests.app.core.window import window
from tests.app.store.support import (
    FILLER,
    Clock,
    answer,
    fill_disk,
    full_disk,
    is_sound,
    rows,
    say,
    small_disk,
    texts,
)


@pytest.fixture
def moments() -> Clock:
    return Clock()


@pytest.fixture
def store(path: Path, clock: Clock, moments: Clock) -> Iterator[ChatStore]:
    store = ChatStore.open(path, clock, moments)
    yield store
    store.close()


def pass_time(moments: Clock) -> None:
    moments.now_s += RETURN_INTERVAL_S


def kept(path: Path) -> list[tuple[object, ...]]:
    return rows(path, "SELECT role, text, state FROM message ORDER BY id")


def test_what_was_missed_is_written_in_order_as_soon_as_there_is_room(
    store: ChatStore, path: Path, moments: Clock
) -> None:
    chat = store.create_chat("chat").id
    reply = store.ask(chat, None, "first")[2]
    store.grow_reply(reply.id, "on disk, ")
    with full_disk():
        store.grow_reply(reply.id, "in memory, " * 1000)
        assert not store.is_saving
        assert [each.id for each in store.unsaved_chats()] == [chat]
        store.finish_reply(reply.id, "complete", TurnStats(rounds=3), text="to its end")
        second = store.ask(chat, reply.id, "second")[2]
        store.finish_reply(second.id, "stopped", text="answer")
        other = store.create_chat("other").id
        say(store, other, "elsewhere")
        store.rename(chat, "renamed")
        pass_time(moments)
        assert not store.save_again()
        assert [each.title for each in store.unsaved_chats()] == ["renamed", "other"]
    assert store.notice
    assert "full" in store.notice or "disk" in store.notice
    assert not store.save_again(), "not tried again at once"
    pass_time(moments)
    assert store.save_again()
    assert (store.notice, store.unsaved_chats()) == (SAVED_AGAIN, [])
    first = "on disk, " + "in memory, " * 1000 + "to its end"
    assert kept(path) == [
        ("user", "first", "complete"), ("assistant", first, "complete"), ("user", "second", "complete"),
        ("assistant", "answer", "stopped"), ("user", "elsewhere", "complete"),
    ]  # fmt: skip
    assert rows(path, "SELECT rounds FROM turn_stats") == [(3,)]
    assert [each.title for each in store.list_chats()] == ["renamed", "other"][::-1]
    store.continue_reply(second.id)
    store.finish_reply(second.id, "complete", text=" continued")
    assert texts(store, chat)[-1] == "answer continued", "ids stay the same"
    assert is_sound(path)


@pytest.mark.parametrize("how", ["the next message", "closing"])
def test_the_next_message_and_closing_return_too(path: Path, clock: Clock, moments: Clock, how: str) -> None:
    store = ChatStore.open(path, clock, moments)
    chat = store.create_chat("chat").id
    with full_disk():
        answer(store, say(store, chat, "in memory " * 1000), "answer")
        assert not store.is_saving
    pass_time(moments)
    if how == "the next message":
        say(store, chat, "next")
        assert store.is_saving
    store.close()
    assert [text for _, text, _ in kept(path)] == ["in memory " * 1000, "answer", "next"][: 2 + (how != "closing")]


def test_a_window_that_can_write_meanwhile_is_not_overwritten(
    store: ChatStore, path: Path, moments: Clock
) -> None:
    """The other one replies, starts a chat, renames one and deletes one while this one is cut off."""
    chats = [store.create_chat(f"chat {number}").id for number in range(3)]
    for chat in chats:
        answer(store, say(store, chat, "question"), "answer")
    with full_disk():
        answer(store, say(store, chats[0], "ours " * 5000), "ours")
        reply = store.ask(chats[2], store.path(chats[2])[-1].id, "about to be deleted")[2]
        assert not store.is_saving
    with window(path) as other:
        other.run("conversation.open(1)")
        for text in ("theirs", "in a new chat"):
            assert other.run(f"conversation.ask({text!r})") == "None"
            assert other.run("conversation.end('complete')") == "None"
            other.run("conversation.clear()")
        other.run("store.rename(1, 'their title')")
        other.run("store.rename(2, 'their title, too')")
    pass_time(moments)
    assert store.save_again()
    store.finish_reply(reply.id, "complete", text="done")
    assert store.chat(chats[0]).title == "their title"
    found = [message.text.strip()[:4] for message in store.messages(chats[0])]
    assert found == ["ques", "answ", "thei", "", "ours", "ours"]
    assert texts(store, chats[2])[-1] == "done"
    assert len(store.list_chats()) == 4
    assert is_sound(path)


def test_two_windows_that_are_cut_off_at_once_both_return(path: Path, store: ChatStore, moments: Clock) -> None:
    other = ChatStore.open(path, Clock(), moments)
    with full_disk():
        for each in (store, other):
            reply = each.ask(each.create_chat("x").id, None, "long " * 5000)[2]
            each.finish_reply(reply.id, "complete", text="answer")
            assert not each.is_saving
    pass_time(moments)
    assert store.save_again()
    assert other.save_again()
    assert rows(path, "SELECT count(*), count(DISTINCT chat_id) FROM message") == [(4, 2)]
    other.close()


def test_a_reply_that_another_window_went_on_with_meanwhile_becomes_a_version(
    store: ChatStore, path: Path, moments: Clock
) -> None:
    chat = store.create_chat("chat").id
    reply = store.ask(chat, None, "question")[2]
    store.grow_reply(reply.id, "one")
    with full_disk():
        store.finish_reply(reply.id, "stopped", text=" two " * 5000)
    rows_changed = "UPDATE message SET owner = 'x', state = 'complete', text = 'one, and theirs' WHERE id = ?"
    other = ChatStore.open(path)
    other._database.write(lambda connection: connection.execute(rows_changed, (reply.id,)))
    other.close()
    pass_time(moments)
    assert store.save_again()
    assert [message.text.strip()[:10] for message in store.messages(chat)] == [
        "question",
        "one, and t",
        "one two  t",
    ]


def test_a_disk_that_is_full_at_the_start(path: Path, clock: Clock, moments: Clock) -> None:
    store = ChatStore.open(path, clock, moments)
    answer(store, say(store, store.create_chat("old").id, "question"), "answer")
    store.close()
    with full_disk():
        store = ChatStore.open(path, clock, moments)
        assert not store.is_saving
        say(store, 1, "in memory")
        conversation = Conversation(store)
        conversation.ask("new chat")
    pass_time(moments)
    conversation.append("reply")
    conversation.end("complete")
    assert store.is_saving
    assert [text for _, text, _ in kept(path)] == ["question", "answer", "in memory", "new chat", "reply"]
    store.close()


def test_a_file_deleted_meanwhile_is_written_again_whole(store: ChatStore, path: Path, moments: Clock) -> None:
    chat = store.create_chat("chat").id
    answer(store, say(store, chat, "on disk"), "answer")
    with full_disk():
        reply = store.ask(chat, store.path(chat)[-1].id, "in memory")[2]
        for each in path.parent.glob("chats.db*"):
            each.unlink()
        pass_time(moments)
        assert not store.save_again()
    pass_time(moments)
    assert store.save_again()
    store.finish_reply(reply.id, "complete", text="to its end")
    assert [text for _, text, _ in kept(path)] == ["on disk", "answer", "in memory", "to its end"]
    assert is_sound(path)


def test_a_file_replaced_meanwhile_is_not_written(
    store: ChatStore, path: Path, clock: Clock, moments: Clock
) -> None:
    chat = store.create_chat("chat").id
    with full_disk():
        say(store, chat, "ours " * 5000)
    elsewhere = ChatStore.open(path.with_name("other.db"), clock)
    elsewhere.create_chat("theirs")
    elsewhere.close()
    path.with_name("other.db").replace(path)
    for journal in ("chats.db-wal", "chats.db-shm"):
        path.with_name(journal).unlink(missing_ok=True)
    pass_time(moments)
    assert not store.save_again()
    assert store.notice
    assert "another file than before" in store.notice
    assert rows(path, "SELECT title FROM chat") == [("theirs",)]
    assert [each.id for each in store.unsaved_chats()] == [chat]


def test_a_disk_that_is_really_full_and_free_again(folder: Path, clock: Clock, moments: Clock) -> None:
    """A file system of its own, where this is allowed. Its journal, too, has no room."""
    with small_disk(folder / "disk") as mount:
        fill_and_free(mount, clock, moments)


def fill_and_free(mount: Path, clock: Clock, moments: Clock) -> None:
    store = ChatStore.open(mount / "chats.db", clock, moments)
    conversation = Conversation(store)
    said = []
    for number in range(30):
        text = f"question {number} " + "x" * 3000
        is_full = number % 10 in (3, 4, 5, 6)
        if number % 10 == 3:
            fill_disk(mount)
        if number % 10 == 7:
            (mount / FILLER).unlink()
            pass_time(moments)
        conversation.ask(text)
        conversation.append(f"answer {number} " + "y" * 500)
        conversation.flush()
        conversation.end("complete")
        said += [text, f"answer {number} " + "y" * 500]
        assert store.is_saving or is_full
    assert texts(store, 1) == said
    store.close()
    assert [text for _, text, _ in kept(mount / "chats.db")] == said
    assert is_sound(mount / "chats.db")
